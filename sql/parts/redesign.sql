\echo 'redesign: creates the new tables of the settings, in sync with the old places'
DO $do$
DECLARE
    _missing text;
BEGIN
    SELECT string_agg(t, ', ') INTO _missing
    FROM unnest(ARRAY['users', 'personas', 'personalities', 'llm_configs']) AS t
    WHERE NOT pg_temp.is_table(t);
    IF _missing IS NOT NULL THEN
        RAISE EXCEPTION 'there is no table %: the redesign of the settings needs it', _missing;
    END IF;
    PERFORM pg_temp.begin_phase('redesign');
    -- This note goes last on rollback, so that one that was cut short goes on.
    CALL pg_temp.run('users', ARRAY[pg_temp.noted('begun', 'created')]);
END $do$;

-- Tables and columns.
DO $do$
DECLARE
    _fills text[];
BEGIN
    IF NOT pg_temp.is_table('user_default_personas') THEN
        CALL pg_temp.run('users', ARRAY[
            replace($q${{query:create_user_default_personas}}$q$,
                    '{schema}', quote_ident(pg_temp.schema_of('users'))),
            $q${{query:create_user_default_personas_key}}$q$]
            || pg_temp.grants_like('user_default_personas', 'users', 'global_persona_id')
            || pg_temp.noted('user_default_personas', 'created'));
    END IF;
    IF NOT pg_temp.is_table('personality_default_configs') THEN
        CALL pg_temp.run('personalities', ARRAY[
            replace($q${{query:create_personality_default_configs}}$q$,
                    '{schema}', quote_ident(pg_temp.schema_of('personalities'))),
            $q${{query:create_personality_default_configs_key}}$q$]
            || pg_temp.grants_like('personality_default_configs', 'personalities', 'llm_config_id')
            || pg_temp.noted('personality_default_configs', 'created'));
    END IF;
    -- A new column starts with the values that a rollback archived, else with those of old columns.
    IF NOT pg_temp.has_column('llm_configs', 'owner_id') THEN
        CALL pg_temp.run('llm_configs', ARRAY[
            $q${{query:add_config_owner}}$q$,
            $q${{query:refill_config_owner}}$q$,
            pg_temp.noted('llm_configs.owner_id', 'created')]);
    END IF;
    IF NOT pg_temp.has_column('llm_configs', 'is_global') THEN
        _fills := ARRAY[$q${{query:refill_config_is_global}}$q$];
        IF pg_temp.has_column('llm_configs', 'is_default') THEN
            _fills := $q${{query:open_default_configs}}$q$::text || _fills;
        END IF;
        CALL pg_temp.run('llm_configs',
            $q${{query:add_config_is_global}}$q$::text || _fills
            || pg_temp.noted('llm_configs.is_global', 'created'));
    END IF;
    IF NOT pg_temp.has_column('llm_configs', 'context_window_size') THEN
        CALL pg_temp.run('llm_configs', ARRAY[
            $q${{query:add_config_window}}$q$,
            $q${{query:refill_config_window}}$q$,
            pg_temp.noted('llm_configs.context_window_size', 'created')]);
    END IF;
    IF pg_temp.is_valid('llm_configs', '{{settings:CONFIG_OWNER_KEY}}') IS NULL THEN
        CALL pg_temp.run('llm_configs', ARRAY[
            pg_temp.noted('{{settings:CONFIG_OWNER_KEY}}', 'created')]);
    END IF;
    CALL pg_temp.foreign_key('llm_configs', 'owner_id', 'users');
    CALL pg_temp.run('llm_configs', ARRAY[$q${{query:clear_config_owners}}$q$]);
    CALL pg_temp.validate('llm_configs', '{{settings:CONFIG_OWNER_KEY}}');
END $do$;

-- Renames user_personality_settings to user_personality_configs; a view keeps the old name. If the
-- app made the new table beside the old one, the old one is merged into it and put aside.
DO $do$
DECLARE
    _relation CONSTANT text := 'user_personality_settings';
    _prefix CONSTANT text := 'user_personality_settings_';
    _how text := 'renamed';
    _move text[];
    _merge text;
    _view text;
BEGIN
    IF NOT pg_temp.is_table(_relation) THEN
        RETURN;
    END IF;
    -- The view runs as the caller: the table's own grants and row policies apply to both names.
    SELECT replace(replace($q${{query:create_choices_view}}$q$,
                           '{schema}', quote_ident(pg_temp.schema_of(_relation))),
                   '{columns}', string_agg(quote_ident(c.name), ', '))
    INTO _view FROM ({{query:columns}}) c;
    IF pg_temp.is_table('user_personality_configs') THEN
        _how := 'merged';
        SELECT replace($q${{query:merge_choices}}$q$, '{columns}',
                       string_agg(quote_ident(i.name), ', ' ORDER BY i.n))
        INTO _merge FROM pg_temp.insertable('user_personality_configs') i
        WHERE pg_temp.has_column(_relation, i.name);
        EXECUTE _merge;
        COMMIT;
        _move := ARRAY['{{query:lock_choices}}',
            _merge,
            '{{query:put_choices_aside}}'];
    ELSE
        SELECT '{{query:rename_choices}}'::text
            || coalesce(array_agg(replace(replace(
                CASE kind WHEN 'index' THEN '{{query:rename_index}}'
                ELSE '{{query:rename_choices_constraint}}' END,
                '{old}', quote_ident(name)), '{new}',
                quote_ident('user_personality_configs_' || substr(name, length(_prefix) + 1)))),
                '{}')
        INTO _move FROM ({{query:named_after}}) n;
    END IF;
    CALL pg_temp.run(_relation, _move || _view || pg_temp.grants_like(_relation, _relation, NULL)
                                || pg_temp.noted(_how, 'created'));
END $do$;

-- Fills the holes of a function or trigger that keeps both sides in sync. If personalities have no
-- window, it leaves windows out.
CREATE OR REPLACE FUNCTION pg_temp.settings_filled(_function text) RETURNS text LANGUAGE sql AS $fn$
    SELECT pg_temp.pinned(replace(replace(replace(replace(replace(_function,
        '{config_columns}', (SELECT string_agg('"' || replace(name, '"', '""') || '"', ', '
                                               ORDER BY n)
                             FROM pg_temp.insertable('llm_configs'))),
        '{window}', CASE WHEN has THEN 'NEW.context_window_size' ELSE 'NULL' END),
        '{take_window}', CASE WHEN has THEN ', context_window_size = size' ELSE '' END),
        '{other_window}', CASE WHEN has THEN ' OR context_window_size <> size' ELSE '' END),
        '{window_column}', CASE WHEN has THEN ', context_window_size' ELSE '' END))
    FROM pg_temp.has_column('personalities', 'context_window_size') AS h(has)
$fn$;

-- The functions that keep both sides in sync.
DO $do$
BEGIN
    CALL pg_temp.run('users', ARRAY[
        $q${{query:is_waited_for}}$q$,
        pg_temp.settings_filled($q${{query:sync_place}}$q$),
        pg_temp.settings_filled($q${{query:sync_lock_new_place}}$q$),
        pg_temp.settings_filled($q${{query:sync_default}}$q$),
        pg_temp.settings_filled($q${{query:sync_default_chosen}}$q$),
        pg_temp.settings_filled($q${{query:config_with_window}}$q$),
        pg_temp.settings_filled($q${{query:sync_config}}$q$),
        pg_temp.settings_filled($q${{query:sync_config_chosen}}$q$),
        pg_temp.settings_filled($q${{query:sync_window_of_config}}$q$),
        pg_temp.settings_filled($q${{query:sync_default_is_global}}$q$),
        $q${{query:revoke_settings_functions}}$q$]);
END $do$;

CREATE OR REPLACE PROCEDURE pg_temp.create_sync_triggers(_tables text[]) LANGUAGE plpgsql AS $fn$
DECLARE
    _trigger record;
BEGIN
    FOR _trigger IN SELECT on_table, name, stated FROM pg_temp.wanted_sync_triggers()
                   WHERE on_table = ANY(_tables) LOOP
        IF NOT pg_temp.has_trigger(_trigger.on_table, _trigger.name) THEN
            CALL pg_temp.run(_trigger.on_table,
                             ARRAY[pg_temp.settings_filled(_trigger.stated)]);
        END IF;
    END LOOP;
END $fn$;

-- Inserts the forks again that a rollback removed, and gives them to those who had them. Columns
-- that the table gained since take their defaults.
CREATE OR REPLACE FUNCTION pg_temp.restore_forks() RETURNS void LANGUAGE plpgsql AS $fn$
DECLARE
    _columns text;
BEGIN
    SELECT string_agg(quote_ident(i.name), ', ' ORDER BY i.n) INTO _columns
    FROM pg_temp.insertable('llm_configs') i
    WHERE NOT EXISTS (SELECT FROM ({{query:kept_forks}}) k WHERE NOT k.kept ? i.name);
    IF EXISTS ({{query:kept_forks}}) THEN
        EXECUTE replace(replace(replace($q${{query:bring_back_rows}}$q$,
            '{target}', 'llm_configs'), '{columns}', _columns),
            '{rows_kept}', $q$({{query:kept_forks}})$q$);
    END IF;
    {{query:take_forks}};
    {{query:take_chosen_forks}};
    {{query:forget_forks}};
END $fn$;

CREATE OR REPLACE FUNCTION pg_temp.copy_defaults(_after uuid, _limit int)
RETURNS uuid LANGUAGE plpgsql AS $fn$
DECLARE
    _last uuid;
BEGIN
    {{query:copy_defaults}} INTO _last;
    RETURN _last;
END $fn$;

-- Two statements, because the second sees what was written before the first had its locks.
CREATE OR REPLACE FUNCTION pg_temp.copy_defaults_back(_after uuid, _limit int)
RETURNS uuid LANGUAGE plpgsql AS $fn$
DECLARE
    _last uuid;
BEGIN
    {{query:lock_users}} INTO _last;
    {{query:copy_defaults_back}};
    RETURN _last;
END $fn$;

CREATE OR REPLACE FUNCTION pg_temp.place_configs(_limit int) RETURNS bigint LANGUAGE plpgsql AS $fn$
DECLARE
    _placed bigint;
BEGIN
    {{query:place_configs}};
    GET DIAGNOSTICS _placed = ROW_COUNT;
    RETURN _placed;
END $fn$;

DO $do$
DECLARE
    _batch CONSTANT int := 2000;
    _windows CONSTANT boolean := pg_temp.has_column('personalities', 'context_window_size');
    _sized CONSTANT boolean := pg_temp.has_note('llm_configs.context_window_size', 'created');
    _step text;
    _last text;
BEGIN
    IF _windows THEN
        CALL pg_temp.run('llm_configs', ARRAY['SELECT pg_temp.restore_forks()']);
        -- Only once, and only if memsync made the column.
        IF _sized AND NOT pg_temp.has_note('sized', 'created') THEN
            CALL pg_temp.run('llm_configs', ARRAY[$q${{query:size_configs}}$q$,
                                                  $q${{query:note_sized}}$q$]);
        END IF;
    END IF;
    CALL pg_temp.create_sync_triggers(ARRAY['users', 'personas', 'user_default_personas',
                                            'personalities', 'personality_default_configs']);
    IF pg_temp.has_column('users', 'global_persona_id') THEN
        -- Also back, because rows that the app wrote into the new table win.
        FOREACH _step IN ARRAY ARRAY['copy_defaults', 'copy_defaults_back'] LOOP
            _last := NULL;
            LOOP
                CALL pg_temp.ask('users', ARRAY[
                    $q${{query:pass_sync_triggers}}$q$,
                    format('SELECT pg_temp.%I(%L, %s)', _step, _last, _batch)], _last);
                EXIT WHEN _last IS NULL;
            END LOOP;
        END LOOP;
    END IF;
    IF pg_temp.has_column('personalities', 'llm_config_id') THEN
        CALL pg_temp.run('personalities', ARRAY[
            CASE WHEN _windows AND NOT _sized THEN $q${{query:copy_configs_back}}$q$
            ELSE $q${{query:take_placed}}$q$ END]);
        IF _windows THEN
            CALL pg_temp.run('personalities', ARRAY[$q${{query:settle_windows}}$q$]);
        END IF;
        LOOP
            CALL pg_temp.ask('personalities',
                             ARRAY[format('SELECT pg_temp.place_configs(%s)', _batch)], _last);
            EXIT WHEN _last = '0';
        END LOOP;
    END IF;
    -- Not earlier: a config that gets its window would change personalities not copied yet.
    CALL pg_temp.create_sync_triggers(ARRAY['llm_configs']);
    CALL pg_temp.settle_owners();
    IF pg_temp.has_index('{{settings:PROMPTS}}', '{{settings:PROMPTS_INDEX_OLD}}')
       AND NOT pg_temp.has_index('{{settings:PROMPTS}}', '{{settings:PROMPTS_INDEX}}') THEN
        CALL pg_temp.run('{{settings:PROMPTS}}', ARRAY[
            'ALTER INDEX {{settings:PROMPTS_INDEX_OLD}} RENAME TO {{settings:PROMPTS_INDEX}}',
            pg_temp.noted('{{settings:PROMPTS_INDEX}}', 'created')]);
    END IF;
    FOR _step, _last IN SELECT t, i FROM (VALUES {{settings_indexes}}) AS v(t, i) LOOP
        IF NOT pg_temp.has_index(_step, _last) THEN
            CALL pg_temp.run(_step, ARRAY[pg_temp.noted(_last, 'created')]);
        END IF;
    END LOOP;
END $do$;

SELECT pg_temp.index_work(t, i, replace(replace(replace($q${{query:create_settings_index}}$q$,
    '{index}', quote_ident(i)), '{table}', quote_ident(t)), '{column}', quote_ident(c)))
FROM (VALUES {{settings_index_columns}}) AS v(t, i, c)
\gexec

DO $do$ BEGIN PERFORM pg_temp.end_phase(); END $do$;
