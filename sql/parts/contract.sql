\echo 'contract: proves the fill, then drops the old places of the settings and user_id'
DO $do$
DECLARE
    _note CONSTANT text := 'backup confirmed: ' || trim(current_setting('memsync.backup_confirmed'))
                           || '; psql does not ask whether clients still use user_id';
BEGIN
    PERFORM pg_temp.require(
        pg_temp.has_column('conversation_history', 'persona_id') AND pg_temp.is_backfilled()
        AND pg_temp.redesign_stands(), 'contract');
    PERFORM pg_temp.begin_phase('contract');
    COMMIT;
    IF pg_temp.has_users() THEN
        PERFORM pg_temp.prove();
    END IF;
    IF trim(current_setting('memsync.backup_confirmed')) = '' THEN
        RAISE EXCEPTION 'contract does not start before a backup is confirmed; the other phases are '
            'done'
            USING HINT = 'Take a backup, see that it can be read, and run this again with '
                         '-v backup_confirmed=''which one''.';
    END IF;
    IF pg_temp.has_column('conversation_history', 'user_id') THEN
        {{query:note_gates_passed}};
    END IF;
END $do$;

CREATE OR REPLACE FUNCTION pg_temp.sync_trigger_dropped(_name text, _table text)
RETURNS text LANGUAGE sql AS
$fn$ SELECT replace(replace($q${{query:drop_sync_trigger}}$q$, '{trigger}', quote_ident(_name)),
                    '{table}', quote_ident(_table)) $fn$;

-- Drops old columns of the settings in one transaction, with the triggers that kept them in sync,
-- and archives the values that only these columns hold.
CREATE OR REPLACE PROCEDURE pg_temp.drop_old(_table text, _columns text[], _keep text[])
LANGUAGE plpgsql AS $fn$
DECLARE
    _work text[] := ARRAY[replace($q${{query:lock_table}}$q$, '{table}', quote_ident(_table))];
    _standing text[];
BEGIN
    _standing := ARRAY(SELECT c FROM unnest(_columns) AS c WHERE pg_temp.has_column(_table, c));
    IF cardinality(_standing) = 0 THEN
        RETURN;
    END IF;
    _work := _work || ARRAY(
        SELECT k FROM unnest(_columns, _keep) AS v(c, k)
        WHERE c = ANY(_standing) AND k IS NOT NULL);
    _work := _work || ARRAY(
        SELECT DISTINCT pg_temp.sync_trigger_dropped(name, on_table)
        FROM pg_temp.sync_triggers() WHERE old_table = _table AND old_column = ANY(_standing));
    _work := _work || ARRAY(
        SELECT replace(replace($q${{query:drop_column}}$q$, '{table}', quote_ident(_table)),
                       '{column}', quote_ident(c)) FROM unnest(_standing) AS c);
    _work := _work || ARRAY(
        SELECT pg_temp.noted(_table || '.' || c, 'dropped') FROM unnest(_standing) AS c);
    CALL pg_temp.run(_table, _work);
END $fn$;

DO $do$
DECLARE
    _drops text[];
BEGIN
    IF NOT pg_temp.is_not_null('personas', 'owner_id') THEN
        CALL pg_temp.settle_owners();
        EXECUTE pg_temp.noted('personas.owner_id', 'created');
        COMMIT;
    END IF;
    CALL pg_temp.require_not_null('personas', 'owner_id', '{{settings:OWNER_CHECK}}');
    -- Copied once more: what a sync trigger left to another client whose transaction then failed.
    IF pg_temp.has_column('users', 'global_persona_id') THEN
        CALL pg_temp.run('users', ARRAY[$q${{query:settle_defaults}}$q$]);
    END IF;
    IF pg_temp.has_column('personalities', 'llm_config_id') THEN
        CALL pg_temp.run('personalities', ARRAY[$q${{query:settle_configs}}$q$]);
        IF pg_temp.has_column('personalities', 'context_window_size') THEN
            CALL pg_temp.run('personalities', ARRAY[$q${{query:settle_windows}}$q$]);
        END IF;
    END IF;
    CALL pg_temp.drop_old('users', ARRAY['global_persona_id'], ARRAY[NULL]);
    CALL pg_temp.drop_old('personalities', ARRAY['llm_config_id', 'context_window_size'],
        ARRAY[NULL, $q${{query:keep_personality_windows}}$q$]);
    CALL pg_temp.drop_old('personas', ARRAY['is_global'],
        ARRAY[$q${{query:keep_global_personas}}$q$]);
    CALL pg_temp.drop_old('llm_configs', ARRAY['is_default'],
        ARRAY[$q${{query:keep_default_configs}}$q$]);
    IF pg_temp.is_view('user_personality_settings') THEN
        CALL pg_temp.run('user_personality_configs', ARRAY[
            '{{query:drop_old_choices}}',
            pg_temp.noted('user_personality_settings', 'dropped')]);
    END IF;
    _drops := ARRAY(
        SELECT pg_temp.sync_trigger_dropped(name, on_table)
        FROM (VALUES {{sync_trigger_tables}}) AS v(on_table, name))
        || $q${{query:drop_settings_functions}}$q$::text;
    CALL pg_temp.run('users', _drops);
END $do$;

-- Archives the users that only user_id knows. The user of other rows is the owner of the persona.
DO $do$
DECLARE
    _index text := 'SELECT 1';  -- there is no such index to note
BEGIN
    IF NOT pg_temp.is_not_null('conversation_history', 'persona_id') THEN
        EXECUTE pg_temp.noted_of_history('{{catalog:PERSONA_REQUIRED}}', 'created');
        COMMIT;
    END IF;
    CALL pg_temp.require_not_null('conversation_history', 'persona_id', '{{catalog:PERSONA_CHECK}}');
    IF pg_temp.has_column('conversation_history', 'user_id') THEN
        EXECUTE $q${{query:archive_exceptions}}$q$;
        COMMIT;
        IF pg_temp.is_valid('conversation_history', '{{catalog:USER_KEY}}') IS NOT NULL THEN
            -- In its own transaction, because this one also locks users.
            CALL pg_temp.run('users', ARRAY[
                '{{query:drop_user_key}}',
                pg_temp.noted_of_history('{{catalog:USER_KEY}}', 'dropped')]);
        END IF;
        IF to_regclass('{{catalog:USER_ID_INDEX}}') IS NOT NULL THEN
            _index := pg_temp.noted_of_history('{{catalog:USER_ID_INDEX}}', 'dropped');
        END IF;
        CALL pg_temp.run('conversation_history', ARRAY[
            '{{query:drop_identity_trigger}}',
            '{{query:drop_user_write_trigger}}',
            '{{query:drop_user_id}}',
            $q${{query:note_user_id_dropped}}$q$,
            pg_temp.unnoted_of_history('{{catalog:USER_INDEX}}'),
            _index,
            '{{query:drop_record_user_write}}',
            '{{query:drop_sync_identity}}',
            '{{query:drop_create_default_persona}}',
            '{{query:drop_persona_views}}']);
    END IF;
    IF NOT pg_temp.finished() THEN
        RAISE EXCEPTION 'contract ended, but it is not complete' USING HINT = 'Run this again.';
    END IF;
    PERFORM pg_temp.end_phase();
END $do$;
