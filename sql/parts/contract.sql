\echo 'contract: the proof, then the old places of the settings and user_id go'
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
        RAISE EXCEPTION 'contract does not start before a backup is confirmed; all before it is done'
            USING HINT = 'Take a backup, see that it can be read, and run this again with '
                         '-v backup_confirmed=''which one''.';
    END IF;
    IF pg_temp.has_column('conversation_history', 'user_id') THEN
        {{query:note_gates_passed}};
    END IF;
END $do$;

-- Every persona has an owner; the old columns go, each with the triggers that kept it in step, and
-- what it alone said is kept, in one transaction.
CREATE OR REPLACE PROCEDURE pg_temp.drop_old(_table text, _columns text[], _kept text[])
LANGUAGE plpgsql AS $fn$
DECLARE
    _work text[] := ARRAY[format('LOCK TABLE %I IN ACCESS EXCLUSIVE MODE', _table)];
    _standing text[];
BEGIN
    _standing := ARRAY(SELECT c FROM unnest(_columns) AS c WHERE pg_temp.has_column(_table, c));
    IF cardinality(_standing) = 0 THEN
        RETURN;
    END IF;
    _work := _work || ARRAY(
        SELECT format('INSERT INTO memsync.column_archive (column_name, row_id, value)'
                      ' SELECT %L, id, to_jsonb(%I) FROM %I WHERE %s'
                      ' ON CONFLICT (column_name, row_id) DO UPDATE SET value = excluded.value',
                      _table || '.' || c, c, _table, k)
        FROM unnest(_columns, _kept) AS v(c, k) WHERE c = ANY(_standing) AND k IS NOT NULL);
    _work := _work || ARRAY(
        SELECT DISTINCT format('DROP TRIGGER IF EXISTS %I ON %I', name, on_table)
        FROM pg_temp.mirrors() WHERE old_table = _table AND old_column = ANY(_standing));
    _work := _work || ARRAY(
        SELECT format('ALTER TABLE %I DROP COLUMN %I', _table, c) FROM unnest(_standing) AS c);
    _work := _work || ARRAY(
        SELECT pg_temp.noted(_table || '.' || c, 'dropped') FROM unnest(_standing) AS c);
    CALL pg_temp.run(_table, _work);
END $fn$;

DO $do$
BEGIN
    IF NOT pg_temp.is_not_null('personas', 'owner_id') THEN
        CALL pg_temp.settle_owners();
        EXECUTE pg_temp.noted('personas.owner_id', 'made');
        COMMIT;
    END IF;
    CALL pg_temp.require_not_null('personas', 'owner_id', '{{redesign:OWNER_CHECK}}');
    -- What the mirror let go where two clients crossed and the later one failed is said again.
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
        ARRAY[NULL, '{{contract_settings:_KEPT:personalities.context_window_size}}']);
    CALL pg_temp.drop_old('personas', ARRAY['is_global'],
        ARRAY['{{contract_settings:_KEPT:personas.is_global}}']);
    CALL pg_temp.drop_old('llm_configs', ARRAY['is_default'],
        ARRAY['{{contract_settings:_KEPT:llm_configs.is_default}}']);
    IF pg_temp.is_view('user_personality_settings') THEN
        CALL pg_temp.run('user_personality_configs', ARRAY[
            'DROP VIEW user_personality_settings',
            pg_temp.noted('user_personality_settings', 'dropped')]);
    END IF;
    CALL pg_temp.run('users', ARRAY[
        {{mirror_drop_functions}}]);
END $do$;

-- What user_id alone says is archived; the owner of its persona says the user of any other row.
DO $do$
BEGIN
    CALL pg_temp.require_not_null('conversation_history', 'persona_id', '{{catalog:PERSONA_CHECK}}');
    IF pg_temp.has_column('conversation_history', 'user_id') THEN
        EXECUTE $q${{query:archive_exceptions}}$q$;
        COMMIT;
        IF pg_temp.is_valid('conversation_history', '{{catalog:USER_KEY}}') IS NOT NULL THEN
            -- On its own: this one also locks users.
            CALL pg_temp.run('users', ARRAY[
                'ALTER TABLE conversation_history DROP CONSTRAINT {{catalog:USER_KEY}}']);
        END IF;
        CALL pg_temp.run('conversation_history', ARRAY[
            {{bridge_remove}}]);
    END IF;
    IF NOT pg_temp.finished() THEN
        RAISE EXCEPTION 'contract ended, but a piece is missing' USING HINT = 'Run this again.';
    END IF;
    PERFORM pg_temp.end_phase();
END $do$;
