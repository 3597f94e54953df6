CREATE OR REPLACE FUNCTION pg_temp.require_met() RETURNS void LANGUAGE plpgsql AS $fn$
DECLARE
    _old boolean := pg_temp.has_column('personalities', 'llm_config_id');
    _new boolean := pg_temp.is_table('personality_default_configs');
    _found text;
BEGIN
    IF EXISTS (SELECT FROM pg_class WHERE oid = to_regclass('conversation_history')
               AND (relkind <> 'r' OR relispartition))
       OR EXISTS (SELECT FROM pg_inherits
                  WHERE to_regclass('conversation_history') IN (inhparent, inhrelid)) THEN
        RAISE EXCEPTION 'conversation_history is no ordinary table, or has parent or child tables: '
            'this script does not support that' USING HINT = 'memsync migrate plan says more.';
    END IF;
    IF (SELECT c.found FROM ({{query:shadow_state}}) c) THEN
        RAISE EXCEPTION 'memsync is filling a copy of the history, or left one'
            USING HINT = 'Use memsync migrate run instead; it goes on from there.';
    END IF;
    -- This script would take over the defaults of columns that are there again and not filled yet,
    -- and the values that they had would be lost.
    IF EXISTS (SELECT FROM (VALUES {{old_columns}}) AS v(t, c)
               WHERE pg_temp.has_column(t, c) AND pg_temp.has_note(t || '.' || c, 'dropped')) THEN
        RAISE EXCEPTION 'a rollback of contract was cut short: old columns of the settings are there '
            'again, and are not filled yet'
            USING HINT = 'Finish it with memsync migrate rollback, or go forward with memsync '
                         'migrate run. Nothing was changed.';
    END IF;
    -- If memsync or this script noted that it began the redesign, this script goes on.
    IF pg_temp.has_note('begun', 'created') OR EXISTS (
        SELECT FROM unnest(ARRAY['users', 'personas', 'personalities', 'llm_configs']) AS t
        WHERE NOT pg_temp.is_table(t)) THEN
        RETURN;
    END IF;
    _found := CASE
        WHEN pg_temp.has_column('users', 'global_persona_id')
           = pg_temp.is_table('user_default_personas')
        THEN 'users'' defaults (users.global_persona_id, user_default_personas)'
        WHEN pg_temp.is_table('user_personality_settings')
           = pg_temp.is_table('user_personality_configs')
        THEN 'users'' choices (user_personality_settings, user_personality_configs)'
        WHEN _old = _new OR _old <> pg_temp.has_column('personalities', 'context_window_size')
          OR _new <> pg_temp.has_column('llm_configs', 'context_window_size')
        THEN 'personalities'' configs and windows (personalities.llm_config_id and '
             'context_window_size, personality_default_configs, llm_configs.context_window_size)'
        END;
    IF _found IS NOT NULL THEN
        RAISE EXCEPTION 'the settings are half redesigned, and not by memsync: %', _found
            USING HINT = 'Use memsync migrate run instead: this script needs each of them in its old '
                         'place only or in its new one only. Nothing was changed.';
    END IF;
END $fn$;

-- Stop, before anything is changed, if the operator must decide something.
DO $do$
DECLARE
    _missing text;
BEGIN
    SELECT string_agg(t, ', ') INTO _missing FROM unnest({{app_tables}}) AS t
    WHERE to_regclass(t) IS NULL;
    IF _missing IS NOT NULL THEN
        RAISE EXCEPTION 'this is not the app''s database: it has no table %', _missing
            USING HINT = 'Is its schema on the search_path?';
    END IF;
    IF NOT pg_temp.finished() THEN
        PERFORM pg_temp.require_met();
        PERFORM pg_temp.require_decisions();
    END IF;
END $do$;
