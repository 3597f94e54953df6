\echo 'expand: adds persona_id, and the triggers that give each row the id that it lacks'
DO $do$
DECLARE
    _statements text[] := '{}';
BEGIN
    PERFORM pg_temp.require(pg_temp.redesign_stands(), 'expand');
    PERFORM pg_temp.begin_phase('expand');
    IF pg_temp.has_column('conversation_history', 'user_id') THEN
        -- The functions come first, because they wait for no lock.
        _statements := ARRAY[
            pg_temp.filled($q${{query:define_persona_override}}$q$),
            pg_temp.filled($q${{query:define_persona_default}}$q$),
            pg_temp.pinned(pg_temp.filled($q${{query:define_create_default_persona}}$q$)),
            pg_temp.pinned($q${{query:define_sync_identity}}$q$),
            $q${{query:define_record_user_write}}$q$,
            $q${{query:revoke_sync_functions}}$q$];
    END IF;
    IF NOT pg_temp.has_column('conversation_history', 'persona_id') THEN
        _statements := _statements || ARRAY['{{query:add_persona_id}}',
            pg_temp.noted_of_history('{{catalog:PERSONA_COLUMN}}', 'created')];
    END IF;
    IF pg_temp.has_column('conversation_history', 'user_id') THEN
        IF NOT pg_temp.has_trigger('conversation_history', '{{catalog:USER_WRITE_TRIGGER}}') THEN
            _statements := _statements || ARRAY[
                $q${{query:create_user_write_trigger}}$q$,
                $q${{query:watch_user_writes}}$q$];
        END IF;
        IF NOT pg_temp.has_trigger('conversation_history', '{{catalog:IDENTITY_TRIGGER}}') THEN
            _statements := _statements || $q${{query:create_identity_trigger}}$q$::text;
        END IF;
    END IF;
    -- One transaction, because a script that is cut short must leave all of it or nothing.
    IF _statements <> '{}' THEN
        CALL pg_temp.run('conversation_history', _statements);
    END IF;
    PERFORM pg_temp.end_phase();
END $do$;
