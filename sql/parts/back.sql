\echo 'back: drops persona_id with its indexes, key and trigger; the tables of the redesign stay'
DO $do$
BEGIN
    IF to_regclass('memsync.runs') IS NULL THEN
        RAISE EXCEPTION 'there is nothing to take back: no migration was begun here';
    END IF;
    IF NOT pg_temp.has_users() OR pg_temp.is_created('{{catalog:PERSONA_REQUIRED}}')
       OR pg_temp.is_valid('conversation_history', '{{catalog:PERSONA_CHECK}}') IS NOT NULL
       OR EXISTS (SELECT FROM memsync.history_change
                  WHERE object = '{{catalog:USER_KEY}}' AND change = 'dropped')
       OR EXISTS (SELECT FROM memsync.redesign_change
                  WHERE change = 'dropped' OR object = 'personas.owner_id') THEN
        RAISE EXCEPTION 'contract was begun: this script takes back only the phases before it'
            USING HINT = 'memsync migrate rollback takes contract back, also in part.';
    END IF;
    PERFORM pg_temp.begin_phase('backfill', 'rollback');
    IF pg_temp.is_created('{{catalog:PERSONA_KEY}}') THEN
        CALL pg_temp.run('conversation_history', ARRAY[
            '{{query:drop_persona_key}}',
            pg_temp.unnoted_of_history('{{catalog:PERSONA_KEY}}')]);
    END IF;
    CALL pg_temp.note_created(ARRAY['{{catalog:USER_INDEX}}']);
END $do$;

-- Clients read threads by user again.
SELECT pg_temp.index_work('conversation_history', '{{catalog:USER_INDEX}}',
    $q${{query:create_user_index}}$q$)
\gexec

-- The app's own indexes and key stay, and so does a column that the app made itself.
SELECT dropped, pg_temp.unnoted_of_history(name) FROM (VALUES
    ('{{catalog:RETRIEVAL_INDEX}}', '{{query:drop_retrieval_index}}'),
    ('{{catalog:PERSONA_INDEX}}', '{{query:drop_persona_index}}')) AS v(name, dropped)
WHERE pg_temp.is_created(name)
\gexec

DO $do$
DECLARE
    _fill CONSTANT text := 'personas';
    _column text[] := '{}';
    _made record;
BEGIN
    PERFORM pg_temp.end_phase(), pg_temp.begin_phase('expand', 'rollback');
    COMMIT;
    IF pg_temp.has_column('conversation_history', 'persona_id') THEN
        -- Personas that the map would not give are archived, so that going forward again gives
        -- each row the persona that it has now.
        EXECUTE $q${{query:archive_personas}}$q$;
        COMMIT;
        {{query:forget_fill}};
        COMMIT;
    END IF;
    IF pg_temp.is_created('{{catalog:PERSONA_COLUMN}}') THEN
        _column := ARRAY['{{query:drop_persona_id}}',
                         pg_temp.unnoted_of_history('{{catalog:PERSONA_COLUMN}}')];
    END IF;
    CALL pg_temp.run('conversation_history', ARRAY[
        '{{query:drop_identity_trigger}}',
        '{{query:drop_user_write_trigger}}'] || _column || ARRAY[
        '{{query:drop_record_user_write}}',
        '{{query:drop_sync_identity}}',
        '{{query:drop_create_default_persona}}',
        '{{query:drop_persona_views}}']);
    IF pg_temp.has_column('conversation_history', 'persona_id') THEN
        CALL pg_temp.run('conversation_history', ARRAY[$q${{query:restore_existing}}$q$]);
    END IF;
    {{query:forget_existing}};
    PERFORM pg_temp.end_phase();
    COMMIT;
    -- SQL cannot know whether there are memories of them.
    SELECT count(*) AS total, string_agg(format('%s %s of user %s', c.persona_id, c.name, c.user_id), ', ')
           AS named
    INTO _made FROM ({{query:created_personas}}) c;
    IF _made.total > 0 THEN
        RAISE NOTICE '% default personas that memsync made stay: %; memsync migrate rollback removes '
            'those that nothing uses', _made.total, left(_made.named, 1000);
    END IF;
END $do$;
