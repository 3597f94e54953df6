\echo 'redesign: the new tables of the settings, beside the old places and in step with them'
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
    -- Stands until the way back has ended: nothing of it is forgotten when that is cut short.
    CALL pg_temp.run('users', ARRAY[pg_temp.noted('{{redesign:MIRROR}}', 'made')]);
END $do$;

-- Tables and columns.
DO $do$
DECLARE
    _said text[];
BEGIN
    IF NOT pg_temp.is_table('user_default_personas') THEN
        CALL pg_temp.run('users', ARRAY[
            replace($q${{redesign_settings:_TABLES:user_default_personas}}$q$,
                    '{schema}', quote_ident(pg_temp.schema_of('users'))),
            $q${{redesign_settings:_UNIQUE:user_default_personas}}$q$]
            || pg_temp.rights_like('user_default_personas', 'users', 'global_persona_id')
            || pg_temp.noted('user_default_personas', 'made'));
    END IF;
    IF NOT pg_temp.is_table('personality_default_configs') THEN
        CALL pg_temp.run('personalities', ARRAY[
            replace($q${{redesign_settings:_TABLES:personality_default_configs}}$q$,
                    '{schema}', quote_ident(pg_temp.schema_of('personalities'))),
            $q${{redesign_settings:_UNIQUE:personality_default_configs}}$q$]
            || pg_temp.rights_like('personality_default_configs', 'personalities', 'llm_config_id')
            || pg_temp.noted('personality_default_configs', 'made'));
    END IF;
    -- What a new column says at first: what the way back kept of it, else what the old ones say.
    IF NOT pg_temp.has_column('llm_configs', 'owner_id') THEN
        CALL pg_temp.run('llm_configs', ARRAY[
            $q${{redesign_settings:_COLUMNS:owner_id}}$q$,
            $q${{redesign_settings:_SAID:owner_id}}$q$,
            pg_temp.noted('llm_configs.owner_id', 'made')]);
    END IF;
    IF NOT pg_temp.has_column('llm_configs', 'is_global') THEN
        _said := ARRAY[$q${{redesign_settings:_SAID:is_global}}$q$];
        IF pg_temp.has_column('llm_configs', 'is_default') THEN
            _said := 'UPDATE llm_configs SET is_global = true WHERE is_default'::text || _said;
        END IF;
        CALL pg_temp.run('llm_configs',
            $q${{redesign_settings:_COLUMNS:is_global}}$q$::text || _said
            || pg_temp.noted('llm_configs.is_global', 'made'));
    END IF;
    IF NOT pg_temp.has_column('llm_configs', 'context_window_size') THEN
        CALL pg_temp.run('llm_configs', ARRAY[
            $q${{redesign_settings:_COLUMNS:context_window_size}}$q$,
            $q${{redesign_settings:_SAID:context_window_size}}$q$,
            pg_temp.noted('llm_configs.context_window_size', 'made')]);
    END IF;
    IF pg_temp.is_valid('llm_configs', '{{redesign:CONFIG_OWNER_KEY}}') IS NULL THEN
        CALL pg_temp.run('llm_configs', ARRAY[
            pg_temp.noted('{{redesign:CONFIG_OWNER_KEY}}', 'made')]);
    END IF;
    CALL pg_temp.foreign_key('llm_configs', 'owner_id', 'users');
    CALL pg_temp.run('llm_configs', ARRAY[$q${{query:clear_config_owners}}$q$]);
    CALL pg_temp.validate('llm_configs', '{{redesign:CONFIG_OWNER_KEY}}');
END $do$;

-- user_personality_settings becomes user_personality_configs; a view bears the old name. Where the
-- app made the new table beside the old one, the old one's rows go over, and it is put aside.
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
    -- As the caller: the table's own grants and row policies hold by either name.
    SELECT format('CREATE VIEW %I.user_personality_settings WITH (security_invoker) AS SELECT %s'
                  ' FROM user_personality_configs',
                  pg_temp.schema_of(_relation), string_agg(quote_ident(c.name), ', '))
    INTO _view FROM ({{query:columns}}) c;
    IF pg_temp.is_table('user_personality_configs') THEN
        _how := 'merged';
        SELECT format('INSERT INTO user_personality_configs (%1$s)'
                      ' SELECT %1$s FROM user_personality_settings ON CONFLICT DO NOTHING',
                      string_agg(quote_ident(i.name), ', ' ORDER BY i.n))
        INTO _merge FROM pg_temp.insertable('user_personality_configs') i
        WHERE pg_temp.has_column(_relation, i.name);
        EXECUTE _merge;
        COMMIT;
        _move := ARRAY['LOCK TABLE user_personality_settings IN ACCESS EXCLUSIVE MODE',
            _merge,
            'ALTER TABLE user_personality_settings SET SCHEMA memsync'];
    ELSE
        SELECT 'ALTER TABLE user_personality_settings RENAME TO user_personality_configs'::text
            || coalesce(array_agg(format(
                CASE kind WHEN 'index' THEN 'ALTER INDEX %I RENAME TO %I'
                ELSE 'ALTER TABLE user_personality_configs RENAME CONSTRAINT %I TO %I' END,
                name, 'user_personality_configs_' || substr(name, length(_prefix) + 1))), '{}')
        INTO _move FROM ({{query:named_after}}) n;
    END IF;
    CALL pg_temp.run(_relation, _move || _view || pg_temp.rights_like(_relation, _relation, NULL)
                                || pg_temp.noted(_how, 'made'));
END $do$;

-- A function of the mirror, its holes filled; without windows of personalities it knows none.
CREATE OR REPLACE FUNCTION pg_temp.mirror_filled(_function text) RETURNS text LANGUAGE sql AS $fn$
    SELECT pg_temp.pinned(replace(replace(replace(replace(_function,
        '{config_columns}', (SELECT string_agg('"' || replace(name, '"', '""') || '"', ', '
                                               ORDER BY n)
                             FROM pg_temp.insertable('llm_configs'))),
        '{window}', CASE WHEN has THEN 'NEW.context_window_size' ELSE 'NULL' END),
        '{take_window}', CASE WHEN has THEN ', context_window_size = size' ELSE '' END),
        '{other_window}', CASE WHEN has THEN ' OR context_window_size <> size' ELSE '' END))
    FROM pg_temp.has_column('personalities', 'context_window_size') AS h(has)
$fn$;

-- What keeps both sides in step.
DO $do$
BEGIN
    CALL pg_temp.run('users', ARRAY[
        {{mirror_functions}}]);
END $do$;

CREATE OR REPLACE PROCEDURE pg_temp.hang_mirrors(_tables text[]) LANGUAGE plpgsql AS $fn$
DECLARE
    _mirror record;
BEGIN
    FOR _mirror IN SELECT on_table, name, stated FROM pg_temp.wanted_mirrors()
                   WHERE on_table = ANY(_tables) LOOP
        IF NOT pg_temp.has_trigger(_mirror.on_table, _mirror.name) THEN
            IF pg_temp.has_column('personalities', 'context_window_size') THEN
                _mirror.stated := replace(_mirror.stated, 'llm_config_id ON personalities',
                                          'llm_config_id, context_window_size ON personalities');
            END IF;
            CALL pg_temp.run(_mirror.on_table, ARRAY[_mirror.stated]);
        END IF;
    END LOOP;
END $fn$;

-- Makes the forks again that the way back removed, for those who had them. Columns that the table
-- gained since take their defaults.
CREATE OR REPLACE FUNCTION pg_temp.restore_forks() RETURNS void LANGUAGE plpgsql AS $fn$
DECLARE
    _columns text;
BEGIN
    SELECT string_agg(quote_ident(i.name), ', ' ORDER BY i.n) INTO _columns
    FROM pg_temp.insertable('llm_configs') i
    WHERE NOT EXISTS (SELECT FROM ({{query:kept_forks}}) k WHERE NOT k.kept ? i.name);
    IF EXISTS ({{query:kept_forks}}) THEN
        EXECUTE format($q$
            INSERT INTO llm_configs (%1$s) SELECT %1$s FROM
            (SELECT (jsonb_populate_record(NULL::llm_configs, k.kept)).*
             FROM ({{query:kept_forks}}) k) AS again
            ON CONFLICT (id) DO NOTHING$q$, _columns);
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

-- Two statements: the second one sees what was written until the first one had the locks.
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
    _sized CONSTANT boolean := pg_temp.has_note('llm_configs.context_window_size', 'made');
    _step text;
    _last text;
BEGIN
    IF _windows THEN
        CALL pg_temp.run('llm_configs', ARRAY['SELECT pg_temp.restore_forks()']);
        -- Once, where memsync made the column.
        IF _sized AND NOT pg_temp.has_note('{{redesign:SIZED}}', 'made') THEN
            CALL pg_temp.run('llm_configs', ARRAY[$q${{query:size_configs}}$q$,
                                                  $q${{query:note_sized}}$q$]);
        END IF;
    END IF;
    CALL pg_temp.hang_mirrors(ARRAY['users', 'personas', 'user_default_personas', 'personalities',
                                    'personality_default_configs']);
    IF pg_temp.has_column('users', 'global_persona_id') THEN
        -- Where the app filled the new table itself, what that says counts: so back as well.
        FOREACH _step IN ARRAY ARRAY['copy_defaults', 'copy_defaults_back'] LOOP
            _last := NULL;
            LOOP
                CALL pg_temp.ask('users', ARRAY[
                    $q${{query:copying}}$q$,
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
    -- Not before: giving a config its size would have changed personalities not placed yet.
    CALL pg_temp.hang_mirrors(ARRAY['llm_configs']);
    CALL pg_temp.settle_owners();
    FOR _step, _last IN SELECT t, i FROM (VALUES {{redesign_indexes}}) AS v(t, i) LOOP
        IF NOT pg_temp.has_index(_step, _last) THEN
            CALL pg_temp.run(_step, ARRAY[pg_temp.noted(_last, 'made')]);
        END IF;
    END LOOP;
END $do$;

SELECT pg_temp.index_work(t, i, s) FROM (VALUES
    {{redesign_index_builds}}) AS v(t, i, s)
\gexec

DO $do$ BEGIN PERFORM pg_temp.end_phase(); END $do$;
