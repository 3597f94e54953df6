-- The migration in one script: it moves conversation_history from user_id to persona_id with psql
-- alone, while the app runs, and does what `memsync migrate run` does, with the same result. memsync
-- makes finer steps, asks whether old clients are gone, and can take evidence from long-term memory,
-- which SQL cannot. It may be run again at any time: it goes on from where the database stands.
-- Where the app redesigned its settings by half, or a copy of the history is half filled, it stops
-- before it changes anything: use `memsync migrate run` there.
--
--     psql "$URL" -f sql/migrate-persona-all-in-one.sql \
--         -v unresolved=create -v backup_confirmed='which one'
--
-- Choices: -v unresolved=create makes a default persona for each user who has none (without: stop);
-- -v backup_confirmed='which one' lets it drop user_id (without: stop before that).
-- Also lock_timeout_ms (50), lock_deadline_s (300), batch_target_ms (50).
-- -v only=PHASE runs one phase: isolate, redesign, expand, backfill or contract, in this order.
-- -v only=verify fails unless every message has the right persona; it changes nothing.
-- -v only=back takes expand and backfill back, before contract. Messages keep their users; going
-- forward again gives each the persona that it had. What the redesign of the settings made stays, in
-- step with the old places. From contract on, and for the redesign: `memsync migrate rollback`.
-- It needs a session of its own: no pooler in transaction mode, no psql -1 or -c.
-- Exit status 0: all is done. 3: it stopped, and the last message says why.
--
-- Made by `make sql` from sql/parts; do not edit it here.

-- Any error ends this script: psql exits with status 3, also when it reads stdin.
\set ON_ERROR_STOP on
\set ON_ERROR_ROLLBACK off
\set AUTOCOMMIT on
\set QUIET on
\set VERBOSITY default
\set SHOW_CONTEXT never
\pset pager off
\pset footer off

-- Defaults of the options; -v on the command line sets them.
\if :{?unresolved}
\else
\set unresolved fail
\endif
\if :{?backup_confirmed}
\else
\set backup_confirmed ''
\endif
\if :{?only}
\else
\set only ''
\endif
\if :{?lock_timeout_ms}
\else
\set lock_timeout_ms 50
\endif
\if :{?lock_deadline_s}
\else
\set lock_deadline_s 300
\endif
\if :{?batch_target_ms}
\else
\set batch_target_ms 50
\endif

-- A role, a database or the environment may set these otherwise. Some steps must take long, so no
-- timeout stands. A policy that hides rows is an error, because no row is skipped silently.
SELECT set_config(name, value, false) FROM (VALUES
    ('TimeZone', 'UTC'), ('timezone_abbreviations', 'Default'), ('DateStyle', 'ISO, MDY'),
    ('IntervalStyle', 'postgres'), ('bytea_output', 'hex'), ('extra_float_digits', '1'),
    ('client_encoding', 'UTF8'), ('standard_conforming_strings', 'on'), ('array_nulls', 'on'),
    ('transform_null_equals', 'off'), ('quote_all_identifiers', 'off'), ('lc_monetary', 'C'),
    ('lc_numeric', 'C'), ('lc_time', 'C'), ('gin_fuzzy_search_limit', '0'),
    ('restrict_nonsystem_relation_kind', ''), ('stats_fetch_consistency', 'cache'),
    ('default_transaction_isolation', 'read committed'), ('default_transaction_deferrable', 'off'),
    ('session_replication_role', 'origin'), ('check_function_bodies', 'on'),
    ('plpgsql.extra_errors', 'none'), ('plpgsql.extra_warnings', 'none'),
    ('client_min_messages', 'notice'), ('default_tablespace', ''), ('temp_tablespaces', ''),
    ('default_table_access_method', 'heap'), ('lock_timeout', '0'), ('transaction_timeout', '0'),
    ('idle_session_timeout', '0'),
    ('idle_in_transaction_session_timeout', '0'), ('statement_timeout', '0'),
    ('row_security', 'off')) AS pinned(name, value)
WHERE current_setting(name, true) <> value
\g /dev/null
SELECT set_config('maintenance_work_mem',
                  greatest(pg_size_bytes(current_setting('maintenance_work_mem')) / 1024,
                           262144)::text || 'kB', false) AS sorts,
       (SELECT set_config(name, '256kB', false) FROM pg_settings
        WHERE name = 'backend_flush_after' AND setting = '0' AND max_val::int > 0) AS writes
\g /dev/null
SELECT set_config(name, setting, false) FROM (VALUES
    ('plan_cache_mode', 'force_custom_plan'),  -- each batch has another range of blocks
    ('memsync.only', :'only'), ('memsync.unresolved', :'unresolved'), ('memsync.backup_confirmed', :'backup_confirmed'),
    ('memsync.lock_timeout_ms', :'lock_timeout_ms'),
    ('memsync.lock_deadline_s', :'lock_deadline_s'),
    ('memsync.batch_target_ms', :'batch_target_ms'),
    ('memsync.began', clock_timestamp()::text), ('memsync.lock_waits', '0'),
    ('memsync.rows_filled', '0'), ('memsync.entry', '')) AS given(name, setting)
\g /dev/null

DO $do$
BEGIN
    IF current_setting('memsync.only') NOT IN ('', 'isolate', 'redesign', 'expand', 'backfill',
                                               'contract', 'verify', 'back') THEN
        RAISE EXCEPTION 'only is %, it must be a phase (isolate, redesign, expand, backfill, '
            'contract), verify or back', quote_literal(current_setting('memsync.only'));
    END IF;
    IF current_setting('memsync.unresolved') NOT IN ('fail', 'create') THEN
        RAISE EXCEPTION 'unresolved is %, it must be fail or create',
            quote_literal(current_setting('memsync.unresolved'));
    END IF;
    PERFORM current_setting('memsync.lock_timeout_ms')::int,
            current_setting('memsync.lock_deadline_s')::float,
            current_setting('memsync.batch_target_ms')::int;
    PERFORM set_config('memsync.lock_timeout_ms',
                       least(current_setting('memsync.lock_timeout_ms')::int,
                             (SELECT greatest(setting::int / 2, 1) AS half_ms FROM pg_settings WHERE name = 'deadlock_timeout'))::text, false);
    IF current_setting('server_version_num')::int < 150000 THEN
        RAISE EXCEPTION 'this is PostgreSQL %, the migration needs 15 or newer',
            current_setting('server_version');
    END IF;
    -- Fails if the whole script runs in one transaction, because it must commit step by step.
    COMMIT;
END $do$;

-- The parts that this run executes.
SELECT asked = 'verify' AS only_verify, asked = 'back' AS only_back,
       asked NOT IN ('verify', 'back') AS forward,
       asked IN ('', 'isolate') AS run_isolate, asked IN ('', 'redesign') AS run_redesign,
       asked IN ('', 'expand') AS run_expand, asked IN ('', 'backfill') AS run_backfill,
       asked IN ('', 'contract') AS run_contract
FROM (SELECT :'only' AS asked) AS given
\gset

\if :only_verify
\else
-- Only one migration may run, by script or by memsync. The lock ends with this session.
DO $do$
DECLARE
    _key CONSTANT bigint := 7882827065507865345;
    _holder record;
BEGIN
    IF NOT pg_try_advisory_lock(_key) THEN
        SELECT a.pid, coalesce(to_char(a.backend_start, 'YYYY-MM-DD HH24:MI:SS "UTC"'), '?') AS since
        FROM pg_locks l JOIN pg_stat_activity a USING (pid)
        WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
          AND (l.classid::bigint << 32) | l.objid::bigint = _key
          AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()) INTO _holder;
        RAISE EXCEPTION 'another migration is running (pid % since %); nothing was done here',
            _holder.pid, _holder.since;
    END IF;
END $do$;
\endif

-- ---- The schema as it is. All of these helpers are temporary, and end with this session.

CREATE OR REPLACE FUNCTION pg_temp.stands(_relation text, _kind text, _name text)
RETURNS boolean LANGUAGE sql AS $fn$
    SELECT EXISTS (SELECT FROM (WITH named AS (
    SELECT c.oid, n.name AS relation, c.relkind
    FROM unnest(ARRAY[_relation]::text[]) AS n(name) JOIN pg_class c ON c.oid = to_regclass(n.name))
SELECT relation, 'relation' AS kind, relkind::text AS name FROM named
UNION ALL
SELECT n.relation, v.kind, a.attname::text
FROM named n JOIN pg_attribute a ON a.attrelid = n.oid AND a.attnum > 0 AND NOT a.attisdropped
CROSS JOIN LATERAL (VALUES ('column', true), ('not null', a.attnotnull)) AS v(kind, holds)
WHERE v.holds
UNION ALL
SELECT n.relation, 'index', c.relname::text
FROM named n JOIN pg_index i ON i.indrelid = n.oid JOIN pg_class c ON c.oid = i.indexrelid
WHERE i.indisvalid AND i.indisready
UNION ALL
SELECT n.relation, 'constraint', k.conname::text
FROM named n JOIN pg_constraint k ON k.conrelid = n.oid
UNION ALL
SELECT n.relation, 'trigger', t.tgname::text
FROM named n JOIN pg_trigger t ON t.tgrelid = n.oid WHERE NOT t.tgisinternal) o
                   WHERE o.kind = _kind AND o.name = _name)
$fn$;

CREATE OR REPLACE FUNCTION pg_temp.is_table(_name text) RETURNS boolean LANGUAGE sql AS
$fn$ SELECT pg_temp.stands(_name, 'relation', 'r') $fn$;

CREATE OR REPLACE FUNCTION pg_temp.is_view(_name text) RETURNS boolean LANGUAGE sql AS
$fn$ SELECT pg_temp.stands(_name, 'relation', 'v') $fn$;

CREATE OR REPLACE FUNCTION pg_temp.has_column(_table text, _name text)
RETURNS boolean LANGUAGE sql AS
$fn$ SELECT pg_temp.stands(_table, 'column', _name) $fn$;

CREATE OR REPLACE FUNCTION pg_temp.is_not_null(_table text, _name text)
RETURNS boolean LANGUAGE sql AS
$fn$ SELECT pg_temp.stands(_table, 'not null', _name) $fn$;

CREATE OR REPLACE FUNCTION pg_temp.has_trigger(_table text, _name text)
RETURNS boolean LANGUAGE sql AS
$fn$ SELECT pg_temp.stands(_table, 'trigger', _name) $fn$;

-- An INVALID index, which a build that was cut short leaves, does not count.
CREATE OR REPLACE FUNCTION pg_temp.has_index(_table text, _name text)
RETURNS boolean LANGUAGE sql AS
$fn$ SELECT pg_temp.stands(_table, 'index', _name) $fn$;

-- NULL if there is no such constraint, else whether it is validated for every row.
CREATE OR REPLACE FUNCTION pg_temp.is_valid(_table text, _name text)
RETURNS boolean LANGUAGE sql AS $fn$
    SELECT k.valid FROM (SELECT conname AS name, convalidated AS valid
FROM pg_constraint WHERE conrelid = to_regclass(_table)) k WHERE k.name = _name
$fn$;

-- Whether messages have users: the column exists, and no rollback that was cut short must fill it.
CREATE OR REPLACE FUNCTION pg_temp.has_users() RETURNS boolean LANGUAGE plpgsql AS $fn$
BEGIN
    IF NOT pg_temp.has_column('conversation_history', 'user_id') THEN
        RETURN false;
    END IF;
    IF pg_temp.is_not_null('conversation_history', 'user_id')
       OR to_regclass('memsync.runs') IS NULL THEN
        RETURN true;
    END IF;
    RETURN NOT (SELECT coalesce((SELECT user_id_dropped FROM memsync.runs
                     WHERE user_id_dropped
                        OR outcome = 'done' AND (verb = 'finalize'
                                                 OR verb = 'rollback' AND phase = 'contract')
                     ORDER BY id DESC LIMIT 1), false) AS open);
END $fn$;

-- The triggers that keep the old places of the settings and the new tables in sync.
CREATE OR REPLACE FUNCTION pg_temp.sync_triggers()
RETURNS TABLE (old_table text, old_column text, on_table text, name text, stated text)
LANGUAGE sql AS $fn$
    VALUES ('users', 'global_persona_id', 'users', 'memsync_sync_default', $q$CREATE TRIGGER memsync_sync_default AFTER INSERT OR UPDATE OF global_persona_id ON users
    FOR EACH ROW WHEN (current_setting('memsync.copying_settings', true) IS DISTINCT FROM 'on') EXECUTE FUNCTION memsync.sync_place('50ms')$q$),
           ('users', 'global_persona_id', 'user_default_personas', 'memsync_sync_default', $q$CREATE TRIGGER memsync_sync_default AFTER INSERT OR UPDATE OR DELETE ON user_default_personas
    FOR EACH ROW WHEN (current_setting('memsync.copying_settings', true) IS DISTINCT FROM 'on') EXECUTE FUNCTION memsync.sync_place('300ms')$q$),
           ('users', 'global_persona_id', 'personas', 'memsync_sync_default', $q$CREATE TRIGGER memsync_sync_default BEFORE DELETE ON personas
    FOR EACH ROW WHEN (current_setting('memsync.copying_settings', true) IS DISTINCT FROM 'on') EXECUTE FUNCTION memsync.sync_lock_new_place()$q$),
           ('personalities', 'llm_config_id', 'personalities', 'memsync_sync_config', $q$CREATE TRIGGER memsync_sync_config AFTER INSERT OR UPDATE OF llm_config_id{window_column}
    ON personalities
    FOR EACH ROW WHEN (current_setting('memsync.copying_settings', true) IS DISTINCT FROM 'on') EXECUTE FUNCTION memsync.sync_place('50ms')$q$),
           ('personalities', 'llm_config_id', 'personality_default_configs', 'memsync_sync_config', $q$CREATE TRIGGER memsync_sync_config AFTER INSERT OR UPDATE OR DELETE ON personality_default_configs
    FOR EACH ROW WHEN (current_setting('memsync.copying_settings', true) IS DISTINCT FROM 'on') EXECUTE FUNCTION memsync.sync_place('300ms')$q$),
           ('personalities', 'llm_config_id', 'llm_configs', 'memsync_sync_config', $q$CREATE TRIGGER memsync_sync_config BEFORE DELETE ON llm_configs
    FOR EACH ROW WHEN (current_setting('memsync.copying_settings', true) IS DISTINCT FROM 'on') EXECUTE FUNCTION memsync.sync_lock_new_place()$q$),
           ('personalities', 'context_window_size', 'llm_configs', 'memsync_sync_window', $q$CREATE TRIGGER memsync_sync_window AFTER UPDATE OF context_window_size ON llm_configs
    FOR EACH ROW WHEN (current_setting('memsync.copying_settings', true) IS DISTINCT FROM 'on') EXECUTE FUNCTION memsync.sync_window_of_config()$q$),
           ('llm_configs', 'is_default', 'llm_configs', 'memsync_sync_is_default', $q$CREATE TRIGGER memsync_sync_is_default BEFORE INSERT OR UPDATE OF is_default ON llm_configs
    FOR EACH ROW WHEN (current_setting('memsync.copying_settings', true) IS DISTINCT FROM 'on') EXECUTE FUNCTION memsync.sync_default_is_global()$q$)
$fn$;

-- Those of them that are wanted, because the old column still exists.
CREATE OR REPLACE FUNCTION pg_temp.wanted_sync_triggers()
RETURNS TABLE (on_table text, name text, stated text) LANGUAGE sql AS $fn$
    SELECT on_table, name, min(stated) FROM pg_temp.sync_triggers()
    WHERE pg_temp.has_column(old_table, old_column)
    GROUP BY on_table, name ORDER BY on_table, name
$fn$;

CREATE OR REPLACE FUNCTION pg_temp.redesign_stands() RETURNS boolean LANGUAGE sql AS $fn$
    SELECT pg_temp.is_table('user_default_personas')
       AND pg_temp.is_table('personality_default_configs')
       AND pg_temp.is_table('user_personality_configs')
       AND NOT pg_temp.is_table('user_personality_settings')
       AND (SELECT bool_and(pg_temp.has_column('llm_configs', c))
            FROM unnest(ARRAY['owner_id',
        'is_global',
        'context_window_size']) AS c)
       AND (SELECT bool_and(pg_temp.has_index(t, i))
            FROM (VALUES ('user_default_personas', 'user_default_personas_persona_id_idx'),
           ('personality_default_configs', 'personality_default_configs_llm_config_id_idx'),
           ('llm_configs', 'llm_configs_owner_id_idx'),
           ('llm_configs', 'llm_configs_is_global_idx')) AS v(t, i))
       AND pg_temp.is_valid('llm_configs', 'llm_configs_owner_id_fkey') IS NOT NULL
       AND NOT EXISTS (SELECT FROM pg_temp.wanted_sync_triggers() w
                       WHERE NOT pg_temp.has_trigger(w.on_table, w.name))
$fn$;

CREATE OR REPLACE FUNCTION pg_temp.old_settings_are_gone() RETURNS boolean LANGUAGE sql AS $fn$
    SELECT NOT EXISTS (SELECT FROM (VALUES ('users', 'global_persona_id'),
           ('personalities', 'llm_config_id'),
           ('personalities', 'context_window_size'),
           ('personas', 'is_global'),
           ('llm_configs', 'is_default')) AS v(t, c)
                       WHERE pg_temp.has_column(t, c))
       AND to_regclass('user_personality_settings') IS NULL
       AND pg_temp.is_not_null('personas', 'owner_id')
$fn$;

-- Whether everything that reading by persona needs exists.
CREATE OR REPLACE FUNCTION pg_temp.reads_by_persona() RETURNS boolean LANGUAGE sql AS $fn$
    SELECT pg_temp.has_index('conversation_history', 'conversation_history_persona_id_idx')
       AND pg_temp.has_index('conversation_history', 'conversation_history_channel_id_personality_id_persona_id_c_idx')
       AND coalesce(pg_temp.is_valid('conversation_history', 'conversation_history_persona_id_fkey'), false)
       AND to_regclass('memsync.outbox') IS NOT NULL
$fn$;

CREATE OR REPLACE FUNCTION pg_temp.is_backfilled() RETURNS boolean LANGUAGE plpgsql AS $fn$
BEGIN
    IF NOT pg_temp.has_users() THEN
        RETURN true;
    END IF;
    IF NOT pg_temp.has_trigger('conversation_history', 'memsync_sync_identity')
       OR NOT pg_temp.has_column('conversation_history', 'persona_id')
       OR NOT pg_temp.reads_by_persona() THEN
        RETURN false;
    END IF;
    RETURN pg_temp.is_not_null('conversation_history', 'persona_id')
        OR NOT (SELECT EXISTS (SELECT FROM conversation_history WHERE persona_id IS NULL) AS found);
END $fn$;

-- Whether there is nothing left to do.
CREATE OR REPLACE FUNCTION pg_temp.finished() RETURNS boolean LANGUAGE sql AS $fn$
    SELECT NOT pg_temp.has_column('conversation_history', 'user_id')
       AND pg_temp.is_not_null('conversation_history', 'persona_id')
       AND pg_temp.reads_by_persona()
       AND pg_temp.redesign_stands() AND pg_temp.old_settings_are_gone()
$fn$;

-- The query for the personas that users chose for a personality ('override') or have by default
-- ('default'), or for the messages that are not decided ('open'), in the schema as it is now.
CREATE OR REPLACE FUNCTION pg_temp.fragment(_hole text) RETURNS text LANGUAGE plpgsql AS $fn$
DECLARE
    _old boolean := pg_temp.is_table('user_personality_settings');
    _new boolean := pg_temp.is_table('user_personality_configs');
    _said text;
BEGIN
    IF _hole = 'default' THEN
        _old := pg_temp.has_column('users', 'global_persona_id') AND NOT pg_temp.redesign_stands();
        _new := pg_temp.is_table('user_default_personas');
    END IF;
    _said := CASE
        WHEN _hole = 'open' AND NOT pg_temp.has_column('conversation_history', 'persona_id')
            THEN $q$SELECT id, personality_id, user_id
FROM conversation_history$q$
        WHEN _hole = 'open' AND to_regclass('memsync.persona_map') IS NOT NULL
            THEN $q$SELECT id, personality_id, user_id
FROM conversation_history h
WHERE persona_id IS NULL
  AND NOT EXISTS (SELECT FROM memsync.persona_map m
                  JOIN personas p ON p.id = m.persona_id
                  WHERE m.user_id = h.user_id AND m.personality_id = h.personality_id
                    AND (h.created_at >= (SELECT max(coalesce(ended_at, started_at)) FROM memsync.runs
                 WHERE verb = 'rollback' AND phase = 'expand') AT TIME ZONE 'UTC') IS NOT TRUE)
  AND NOT EXISTS (SELECT FROM memsync.row_archive a JOIN personas p ON p.id = a.persona_id
                  WHERE a.history_id = h.id)$q$
        WHEN _hole = 'open' THEN $q$SELECT id, personality_id, user_id
FROM conversation_history WHERE persona_id IS NULL$q$
        WHEN _hole = 'override' AND _old AND _new THEN $q$SELECT user_id, personality_id, persona_id FROM user_personality_configs
WHERE persona_id IS NOT NULL
UNION ALL
SELECT user_id, personality_id, persona_id FROM user_personality_settings s
WHERE persona_id IS NOT NULL
  AND NOT EXISTS (SELECT FROM user_personality_configs c
                  WHERE c.user_id = s.user_id AND c.personality_id = s.personality_id)$q$
        WHEN _hole = 'override' AND _old THEN $q$SELECT user_id, personality_id, persona_id FROM user_personality_settings
WHERE persona_id IS NOT NULL$q$
        WHEN _hole = 'override' AND _new THEN $q$SELECT user_id, personality_id, persona_id FROM user_personality_configs
WHERE persona_id IS NOT NULL$q$
        WHEN _hole = 'default' AND _old AND _new THEN $q$SELECT u.id AS user_id, coalesce(d.persona_id, u.global_persona_id) AS persona_id
FROM users u LEFT JOIN user_default_personas d ON d.user_id = u.id
WHERE coalesce(d.persona_id, u.global_persona_id) IS NOT NULL$q$
        WHEN _hole = 'default' AND _old THEN $q$SELECT id AS user_id, global_persona_id AS persona_id FROM users
WHERE global_persona_id IS NOT NULL$q$
        WHEN _hole = 'default' AND _new THEN $q$SELECT user_id, persona_id FROM user_default_personas$q$ END;
    IF _said IS NULL THEN
        RAISE EXCEPTION 'no table says which persona a user chose or has by default'
            USING HINT = 'Is this the app''s database, and its schema on the search_path?';
    END IF;
    RETURN _said;
END $fn$;

-- Fills the holes {override}, {default}, {open} and {set_default} of a statement.
CREATE OR REPLACE FUNCTION pg_temp.filled(_statement text) RETURNS text LANGUAGE sql AS $fn$
    SELECT replace(replace(replace(replace(_statement,
        '{override}', pg_temp.fragment('override')),
        '{default}', pg_temp.fragment('default')),
        '{open}', pg_temp.fragment('open')),
        '{set_default}', CASE pg_temp.fragment('default')
            WHEN $q$SELECT id AS user_id, global_persona_id AS persona_id FROM users
WHERE global_persona_id IS NOT NULL$q$ THEN $q$UPDATE users SET global_persona_id = created WHERE id = for_user$q$
            WHEN $q$SELECT u.id AS user_id, coalesce(d.persona_id, u.global_persona_id) AS persona_id
FROM users u LEFT JOIN user_default_personas d ON d.user_id = u.id
WHERE coalesce(d.persona_id, u.global_persona_id) IS NOT NULL$q$ THEN $q$UPDATE users SET global_persona_id = created WHERE id = for_user;
    INSERT INTO user_default_personas (user_id, persona_id, updated_at)
    VALUES (for_user, created, timezone('UTC', clock_timestamp()))
    ON CONFLICT (user_id) DO UPDATE SET persona_id = excluded.persona_id$q$
            ELSE $q$INSERT INTO user_default_personas (user_id, persona_id, updated_at)
    VALUES (for_user, created, timezone('UTC', clock_timestamp()))
    ON CONFLICT (user_id) DO UPDATE SET persona_id = excluded.persona_id$q$ END)
$fn$;

-- Fills {search_path}: where functions that outlive this session find the app's tables.
CREATE OR REPLACE FUNCTION pg_temp.pinned(_statement text) RETURNS text LANGUAGE sql AS $fn$
    SELECT replace(_statement, '{search_path}', string_agg(quote_ident(s), ', ') || ', pg_temp')
    FROM unnest(current_schemas(false)) AS s
$fn$;

CREATE OR REPLACE FUNCTION pg_temp.granted(_may text, _of text, _to name, _grantable boolean)
RETURNS text LANGUAGE sql AS
$fn$ SELECT format('GRANT %s ON %I TO %s', _may, _of, coalesce(quote_ident(_to), 'PUBLIC'))
         || CASE WHEN _grantable THEN ' WITH GRANT OPTION' ELSE '' END $fn$;

-- The statements that give a new relation the owner and the grants of another. `_replaced` is the
-- column that it replaces; without one, the relation has the columns of the other.
CREATE OR REPLACE FUNCTION pg_temp.grants_like(_of text, _relation text, _replaced text)
RETURNS text[] LANGUAGE sql AS $fn$
    WITH grants AS (SELECT pg_get_userbyid(c.relowner) AS owner,
           pg_get_userbyid(nullif(a.grantee, 0)) AS grantee, m.privilege,
           bool_or(a.is_grantable) AS is_grantable
    FROM pg_class c
    LEFT JOIN pg_attribute k ON k.attrelid = c.oid AND k.attname = _replaced AND k.attnum > 0
    LEFT JOIN LATERAL (SELECT * FROM aclexplode(c.relacl) UNION SELECT * FROM aclexplode(k.attacl)) a
           ON a.grantee <> c.relowner
    LEFT JOIN LATERAL unnest(CASE WHEN k.attnum IS NOT NULL AND a.privilege_type = 'UPDATE'
                                  THEN ARRAY['INSERT', 'UPDATE', 'DELETE']
                                  ELSE ARRAY[a.privilege_type] END) AS m(privilege) ON true
    WHERE c.oid = to_regclass(_relation)
    GROUP BY c.relowner, a.grantee, m.privilege
    ORDER BY grantee, privilege),
    single AS (SELECT k.attname AS column, pg_get_userbyid(nullif(a.grantee, 0)) AS grantee,
           a.privilege_type AS privilege, a.is_grantable
    FROM pg_attribute k CROSS JOIN LATERAL aclexplode(k.attacl) a
    WHERE k.attrelid = to_regclass(_relation) AND k.attnum > 0 AND NOT k.attisdropped
    ORDER BY k.attnum, grantee, privilege)
    SELECT coalesce(array_agg(stated ORDER BY n, attnum, grantee, privilege), '{}') FROM (
        SELECT 1 AS n, 0 AS attnum, grantee, privilege,
               pg_temp.granted(privilege, _of, grantee, is_grantable) AS stated
        FROM grants WHERE privilege IS NOT NULL
        UNION ALL
        SELECT 2, row_number() OVER ()::int, grantee, privilege,
               pg_temp.granted(format('%s (%I)', privilege, s.column), _of, grantee, is_grantable)
        FROM single s WHERE _replaced IS NULL
        UNION ALL
        SELECT DISTINCT 3, 0, NULL::name, NULL,
               format('ALTER TABLE %I OWNER TO %I', _of, owner)
        FROM grants WHERE owner <> current_user) g
$fn$;

CREATE OR REPLACE FUNCTION pg_temp.noted(_object text, _change text) RETURNS text LANGUAGE sql AS
$fn$ SELECT replace(replace($q$INSERT INTO memsync.redesign_change (object, change) VALUES ({object}, {change})
ON CONFLICT DO NOTHING$q$, '{object}', quote_literal(_object)),
                    '{change}', quote_literal(_change)) $fn$;

-- The same for an object of the history.
CREATE OR REPLACE FUNCTION pg_temp.noted_of_history(_object text, _change text)
RETURNS text LANGUAGE sql AS
$fn$ SELECT replace(replace($q$INSERT INTO memsync.history_change (object, change) VALUES ({object}, {change})
ON CONFLICT DO NOTHING$q$, '{object}', quote_literal(_object)),
                    '{change}', quote_literal(_change)) $fn$;

CREATE OR REPLACE FUNCTION pg_temp.unnoted_of_history(_object text) RETURNS text LANGUAGE sql AS
$fn$ SELECT replace($q$DELETE FROM memsync.history_change WHERE object = {object}$q$, '{object}', quote_literal(_object)) $fn$;

-- Whether memsync noted that it created this object of the history.
CREATE OR REPLACE FUNCTION pg_temp.is_created(_object text)
RETURNS boolean LANGUAGE plpgsql AS $fn$
BEGIN
    RETURN EXISTS (SELECT FROM memsync.history_change c
                   WHERE c.object = _object AND c.change = 'created');
END $fn$;

-- Notes that memsync is about to create those of the indexes and keys that do not exist.
CREATE OR REPLACE PROCEDURE pg_temp.note_created(_names text[]) LANGUAGE plpgsql AS $fn$
DECLARE
    _name text;
BEGIN
    FOREACH _name IN ARRAY _names LOOP
        IF to_regclass(quote_ident(_name)) IS NULL
           AND pg_temp.is_valid('conversation_history', _name) IS NULL THEN
            EXECUTE pg_temp.noted_of_history(_name, 'created');
        END IF;
    END LOOP;
    COMMIT;
END $fn$;

-- Whether memsync noted that it created or dropped this object of the redesign.
CREATE OR REPLACE FUNCTION pg_temp.has_note(_object text, _change text)
RETURNS boolean LANGUAGE plpgsql AS $fn$
BEGIN
    IF to_regclass('memsync.redesign_change') IS NULL THEN
        RETURN false;
    END IF;
    RETURN EXISTS (SELECT FROM memsync.redesign_change r WHERE r.object = _object AND r.change = _change);
END $fn$;

CREATE OR REPLACE FUNCTION pg_temp.schema_of(_relation text) RETURNS text LANGUAGE sql AS
$fn$ SELECT n.nspname::text AS name FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.oid = to_regclass(_relation) $fn$;

-- Columns that an INSERT may name, in their order.
CREATE OR REPLACE FUNCTION pg_temp.insertable(_relation text)
RETURNS TABLE (name text, n bigint) LANGUAGE sql AS $fn$
    SELECT i.name::text, row_number() OVER () FROM (SELECT attname AS name FROM pg_attribute
    WHERE attrelid = to_regclass(_relation) AND attnum > 0 AND NOT attisdropped
      AND attgenerated = '' AND attidentity <> 'a'
    ORDER BY attnum) i
$fn$;


-- ---- How statements run while clients work.

CREATE OR REPLACE FUNCTION pg_temp.blockers_of(
    _relation text, _modes text[] DEFAULT ARRAY[
        'AccessShareLock', 'RowShareLock', 'RowExclusiveLock', 'ShareUpdateExclusiveLock',
        'ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock'])
RETURNS text LANGUAGE sql AS $fn$
    SELECT coalesce(string_agg(format('%s (%s, %s s): %s',
                                      coalesce('pid ' || pid, 'prepared transaction'), state,
                                      round(open_s::numeric), query), '; '), 'nobody now')
    FROM (WITH seen AS (
        SELECT pid, virtualtransaction, bool_or(granted AND mode = ANY(_modes::text[])) AS holds
        FROM pg_locks
        WHERE relation = to_regclass(_relation) AND pid IS DISTINCT FROM pg_backend_pid()
          AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
          AND (NOT granted OR mode = ANY(_modes::text[]))
        GROUP BY 1, 2),
    who AS (
        SELECT s.holds, a.pid, coalesce(a.state, 'of another role') AS state,
               left((SELECT regexp_replace(known, '((?:[^''"]|"(?:[^"]|"")*")*)''(?:[^'']|'''')*''', '\1''...''', 'g')
            || CASE WHEN known = query THEN '' ELSE '...' END
     FROM substring(query FROM '^(?:[^''"$/-]|"(?:[^"]|"")*"|''(?:[^''\\]|''''|\\[^''])*''|\$(?=\d)'
                               || '|-(?!-[^\n]*[''"$])|/(?!\*(?:[^*]|\*+[^*/])*(?:[''"$]|/\*)))*') AS known), 200) AS query, a.xact_start AS since
        FROM seen s JOIN pg_stat_activity a ON a.pid = s.pid
        UNION ALL
        SELECT s.holds, NULL, 'no session',
               format('COMMIT PREPARED or ROLLBACK PREPARED %L', p.gid), p.prepared
        FROM seen s
        JOIN pg_locks own ON own.virtualtransaction = s.virtualtransaction AND own.pid IS NULL
        JOIN pg_prepared_xacts p ON p.transaction = own.transactionid
        WHERE s.pid IS NULL)
    SELECT pid, state, query,
           coalesce(extract(epoch FROM clock_timestamp() - since), 0)::float AS open_s
    FROM who WHERE holds OR NOT EXISTS (SELECT FROM who WHERE holds)
    ORDER BY since
    LIMIT 5) b
$fn$;

-- Waits before the next try for a lock, longer each time; gives up after the deadline.
CREATE OR REPLACE PROCEDURE pg_temp.wait_turn(_table text, _since timestamptz, _tries int)
LANGUAGE plpgsql AS $fn$
DECLARE
    _who CONSTANT text := pg_temp.blockers_of(_table);
    _deadline_s CONSTANT float := current_setting('memsync.lock_deadline_s');
BEGIN
    PERFORM set_config('memsync.lock_waits',
                       (current_setting('memsync.lock_waits')::int + 1)::text, false);
    IF clock_timestamp() > _since + make_interval(secs => _deadline_s) THEN
        RAISE EXCEPTION 'no lock on % within % s. In the way: %', _table, _deadline_s, _who
            USING HINT = 'End that transaction and run this again; nothing is lost.';
    END IF;
    RAISE NOTICE 'waiting for a lock on %; in the way: %', _table, _who;
    COMMIT;
    PERFORM pg_sleep(least(2.0, 0.05 * 2 ^ least(_tries, 10)) * (0.5 + random()));
    COMMIT;
END $fn$;

-- Runs the statements as one transaction that never queues long for its locks: it gives way, and
-- tries again. `_table` is the table whose lock is hardest to get. `_answer` is the result of the
-- last SELECT.
CREATE OR REPLACE PROCEDURE pg_temp.ask(_table text, _statements text[], INOUT _answer text)
LANGUAGE plpgsql AS $fn$
DECLARE
    _since CONSTANT timestamptz := clock_timestamp();
    _tries int := 0;
    _statement text;
    _had boolean;
BEGIN
    LOOP
        BEGIN
            PERFORM set_config('lock_timeout', current_setting('memsync.lock_timeout_ms'), true),
                    set_config('client_min_messages', 'warning', true);
            FOREACH _statement IN ARRAY _statements LOOP
                IF starts_with(_statement, 'SELECT') THEN
                    EXECUTE _statement INTO _answer;
                ELSE
                    EXECUTE _statement;
                END IF;
            END LOOP;
            _had := true;
        EXCEPTION WHEN lock_not_available OR deadlock_detected THEN
            _had := false;  -- the locks that it had are released
        END;
        COMMIT;
        EXIT WHEN _had;
        CALL pg_temp.wait_turn(_table, _since, _tries);
        _tries := _tries + 1;
    END LOOP;
END $fn$;

CREATE OR REPLACE PROCEDURE pg_temp.run(_table text, _statements text[])
LANGUAGE plpgsql AS $fn$
DECLARE
    _ignored text;
BEGIN
    CALL pg_temp.ask(_table, _statements, _ignored);
END $fn$;

-- Adds a foreign key, named as the app does it, NOT VALID; pg_temp.validate follows.
CREATE OR REPLACE PROCEDURE pg_temp.foreign_key(_table text, _column text, _parent text)
LANGUAGE plpgsql AS $fn$
DECLARE
    _name CONSTANT text := format('%s_%s_fkey', _table, _column);
BEGIN
    IF pg_temp.is_valid(_table, _name) IS NULL THEN
        CALL pg_temp.run(_table, ARRAY[format(
            'ALTER TABLE %I ADD CONSTRAINT %I FOREIGN KEY (%I) REFERENCES %I (id)'
            ' ON UPDATE CASCADE ON DELETE CASCADE NOT VALID', _table, _name, _column, _parent)]);
    END IF;
END $fn$;

CREATE OR REPLACE PROCEDURE pg_temp.validate(_table text, _name text) LANGUAGE plpgsql AS $fn$
BEGIN
    IF NOT pg_temp.is_valid(_table, _name) THEN
        EXECUTE format('ALTER TABLE %I VALIDATE CONSTRAINT %I', _table, _name);
        COMMIT;
    END IF;
END $fn$;

-- Makes a column NOT NULL. A check that is validated while clients work proves it, because SET NOT
-- NULL alone would scan the table under ACCESS EXCLUSIVE.
-- https://www.postgresql.org/docs/current/sql-altertable.html
CREATE OR REPLACE PROCEDURE pg_temp.require_not_null(_table text, _column text, _check text)
LANGUAGE plpgsql AS $fn$
DECLARE
    _proven boolean := true;
BEGIN
    IF NOT pg_temp.is_not_null(_table, _column) THEN
        IF pg_temp.is_valid(_table, _check) IS NULL THEN
            CALL pg_temp.run(_table, ARRAY[format(
                'ALTER TABLE %I ADD CONSTRAINT %I CHECK (%I IS NOT NULL) NOT VALID',
                _table, _check, _column)]);
        END IF;
        BEGIN
            IF NOT pg_temp.is_valid(_table, _check) THEN
                EXECUTE format('ALTER TABLE %I VALIDATE CONSTRAINT %I', _table, _check);
            END IF;
        EXCEPTION WHEN check_violation THEN
            _proven := false;
        END;
        COMMIT;
        IF _proven THEN
            CALL pg_temp.run(_table, ARRAY[format('ALTER TABLE %I ALTER %I SET NOT NULL',
                                                  _table, _column)]);
        END IF;
    END IF;
    IF pg_temp.is_valid(_table, _check) IS NOT NULL THEN
        CALL pg_temp.run(_table, ARRAY[format('ALTER TABLE %I DROP CONSTRAINT %I',
                                              _table, _check)]);
    END IF;
    IF NOT _proven THEN
        RAISE EXCEPTION '%.% is NULL in some rows', _table, _column
            USING HINT = 'Run this again; clients were not refused anything meanwhile.';
    END IF;
END $fn$;

-- The statements that build an index unless a valid one exists, for \gexec, because CREATE INDEX
-- CONCURRENTLY runs in no DO block or transaction.
CREATE OR REPLACE FUNCTION pg_temp.index_work(_table text, _name text, _statement text)
RETURNS SETOF text LANGUAGE plpgsql AS $fn$
BEGIN
    IF pg_temp.has_index(_table, _name) THEN
        RETURN;
    END IF;
    IF to_regclass(quote_ident(_name)) IS NOT NULL THEN
        RAISE NOTICE 'index % is INVALID, its build was cut short: rebuilding', _name;
        RETURN NEXT format('DROP INDEX CONCURRENTLY %I', _name);
    END IF;
    RAISE NOTICE 'building index %', _name;
    RETURN NEXT _statement;
END $fn$;

-- Stops a phase that is run too early.
CREATE OR REPLACE FUNCTION pg_temp.require(_holds boolean, _phase text)
RETURNS void LANGUAGE plpgsql AS $fn$
BEGIN
    IF NOT _holds THEN
        RAISE EXCEPTION 'it is too early for %: the phases before it are not done', _phase
            USING HINT = 'Run the steps before this one, in the order of their numbers.';
    END IF;
END $fn$;

-- Records in memsync.runs that a phase began; pg_temp.end_phase records its end.
CREATE OR REPLACE FUNCTION pg_temp.begin_phase(_phase text, _verb text DEFAULT 'run')
RETURNS void LANGUAGE plpgsql AS $fn$
DECLARE
    _version CONSTANT text := '0.1.0 (psql)';
    -- What goes on with a script that was cut short: up to backfill, unless contract had begun.
    _options CONSTANT json := CASE WHEN _verb = 'run' THEN json_strip_nulls(json_build_object(
        'to', CASE WHEN _phase <> 'contract' THEN 'backfill' END,
        'unresolved', nullif(current_setting('memsync.unresolved'), 'fail')))
        ELSE json_build_object('to', 'redesign') END;
    _entry bigint;
BEGIN
    PERFORM pg_temp.require(to_regclass('memsync.runs') IS NOT NULL, _phase);
    INSERT INTO memsync.runs (verb, phase, memsync_version, options)
    VALUES (_verb, _phase, _version, _options) RETURNING id INTO _entry;
    PERFORM set_config('memsync.entry', _entry::text, false);
END $fn$;

CREATE OR REPLACE FUNCTION pg_temp.end_phase() RETURNS void LANGUAGE plpgsql AS $fn$
DECLARE
    _id CONSTANT bigint := current_setting('memsync.entry');
    _outcome CONSTANT text := 'done';
    _waited_s CONSTANT float := 0;  -- a script is never throttled
    _lock_waits CONSTANT int := current_setting('memsync.lock_waits');
    _rows_filled CONSTANT bigint := current_setting('memsync.rows_filled');
BEGIN
    UPDATE memsync.runs
    SET ended_at = clock_timestamp(), outcome = _outcome, lock_waits = _lock_waits,
        rows_filled = _rows_filled, waited_s = _waited_s
    WHERE id = _id AND outcome IS DISTINCT FROM 'done';
    PERFORM set_config('memsync.lock_waits', '0', false),
            set_config('memsync.rows_filled', '0', false);
END $fn$;


-- ---- Owners of personas, and users without a persona.

CREATE OR REPLACE FUNCTION pg_temp.orphans()
RETURNS TABLE (id uuid, name text, users uuid[]) LANGUAGE plpgsql AS $fn$
BEGIN
    RETURN QUERY EXECUTE pg_temp.filled($q$
        SELECT o.id, o.name::text, o.users FROM (SELECT p.id, p.name,
               coalesce(array_agg(DISTINCT s.user_id) FILTER (WHERE s.user_id IS NOT NULL), '{}') AS users
        FROM personas p
        LEFT JOIN (SELECT user_id, persona_id FROM ({override}) o
        UNION SELECT user_id, persona_id FROM ({default}) d) s ON s.persona_id = p.id
        WHERE p.owner_id IS NULL
        GROUP BY p.id, p.name ORDER BY p.id) o$q$);
END $fn$;

-- Stops if the operator must decide something.
CREATE OR REPLACE FUNCTION pg_temp.require_decisions() RETURNS void LANGUAGE plpgsql AS $fn$
DECLARE
    _total bigint;
    _named text;
    _rows numeric;
BEGIN
    IF NOT pg_temp.is_not_null('personas', 'owner_id') THEN
        SELECT count(*), string_agg(format('%s (%s users)', id, cardinality(users)), ', ')
        INTO _total, _named FROM pg_temp.orphans() WHERE cardinality(users) <> 1;
        IF _total > 0 THEN
            RAISE EXCEPTION '% personas have no owner, and not exactly one user uses each: %',
                _total, left(_named, 1000)
                USING HINT = 'Give them an owner, or use memsync migrate run --orphan-owners.';
        END IF;
    END IF;
    IF current_setting('memsync.unresolved') = 'create' OR pg_temp.is_backfilled() THEN
        RETURN;
    END IF;
    EXECUTE pg_temp.filled($q$
        SELECT count(*), sum(u.rows_count), string_agg(u.user_id::text, ', ')
        FROM (WITH gone AS MATERIALIZED (SELECT NULL::uuid AS persona_id WHERE false),
        lacking AS MATERIALIZED (
            SELECT u.id, u.username FROM users u
            WHERE NOT EXISTS (SELECT FROM ({default}) d
                              WHERE d.user_id = u.id AND d.persona_id IS NOT NULL
                                AND NOT EXISTS (SELECT FROM gone g
                                                WHERE g.persona_id = d.persona_id))
        )
        SELECT u.id AS user_id, u.username, count(*) AS rows_count
        FROM lacking u
        JOIN (SELECT o.user_id, o.personality_id FROM ({open}) o
        WHERE NOT EXISTS (SELECT FROM (SELECT NULL::uuid AS history_id WHERE false) t WHERE t.history_id = o.id)) l ON l.user_id = u.id
        LEFT JOIN ({override}) o ON o.user_id = l.user_id AND o.personality_id = l.personality_id
                                AND NOT EXISTS (SELECT FROM gone g WHERE g.persona_id = o.persona_id)
        WHERE o.persona_id IS NULL
        GROUP BY u.id, u.username ORDER BY u.id) u$q$) INTO _total, _rows, _named;
    IF _total > 0 THEN
        RAISE EXCEPTION '% users (% messages) have no persona: neither a choice for the personality '
            'nor a default. They are: %', _total, _rows, left(_named, 1000)
            USING HINT = 'Give them one, or run this again with -v unresolved=create to make a '
                         'default persona for each; no message was changed.';
    END IF;
END $fn$;

CREATE OR REPLACE FUNCTION pg_temp.give_owner(_persona_id uuid, _owner_id uuid, _decision text)
RETURNS void LANGUAGE plpgsql AS $fn$
BEGIN
    WITH given AS (
        UPDATE personas SET owner_id = _owner_id WHERE id = _persona_id AND owner_id IS NULL
        RETURNING id)
    INSERT INTO memsync.orphan_persona (persona_id, decision, owner_id, persona_row, used_by)
    SELECT p.id, _decision, _owner_id, to_jsonb(p), '[]' FROM personas p JOIN given USING (id)
    ON CONFLICT (persona_id) DO UPDATE SET decision = excluded.decision, owner_id = excluded.owner_id;
END $fn$;

-- Makes the one user who uses a persona without an owner its owner.
CREATE OR REPLACE PROCEDURE pg_temp.settle_owners() LANGUAGE plpgsql AS $fn$
DECLARE
    _orphan record;
BEGIN
    PERFORM pg_temp.require_decisions();
    FOR _orphan IN SELECT id, users FROM pg_temp.orphans() LOOP
        CALL pg_temp.run('personas', ARRAY[format('SELECT pg_temp.give_owner(%L, %L, %L)',
                                                  _orphan.id, _orphan.users[1], 'derived')]);
    END LOOP;
END $fn$;


-- ---- The proof.

-- The number of rows whose persona is not what the settings say, and the first of them as text.
-- NULL if user_id or the sync trigger is gone, because nothing can be recomputed then.
CREATE OR REPLACE FUNCTION pg_temp.wrong_rows(OUT _total bigint, OUT _named text)
LANGUAGE plpgsql AS $fn$
DECLARE
    _limit CONSTANT int := 5;
BEGIN
    IF NOT pg_temp.has_users()
       OR NOT pg_temp.has_trigger('conversation_history', 'memsync_sync_identity') THEN
        RETURN;
    END IF;
    SELECT coalesce(max(w.wrong_total), 0),
           string_agg(format('message %s has persona %s, %s %s',
                             w.id, w.persona_id, w.by_whom, w.expected), '; ')
    INTO _total, _named FROM (WITH settings AS (
        SELECT u.id AS user_id, m.personality_id, m.persona_id AS frozen,
               m.decided_at AT TIME ZONE 'UTC' AS decided_at,
               o.persona_id AS override_now, d.persona_id AS default_now,
               (o.persona_id, d.persona_id) IS NOT DISTINCT FROM
               (m.override_persona_id, m.default_persona_id) AS unchanged
        FROM memsync.persona_map m
        JOIN users u ON u.id = m.user_id
        LEFT JOIN memsync.persona_override o
               ON o.user_id = m.user_id AND o.personality_id = m.personality_id
        LEFT JOIN memsync.persona_default d ON d.user_id = m.user_id
    )
    SELECT h.id, h.user_id, h.personality_id, h.persona_id,
           CASE WHEN a.reason <> 'evidence' THEN 'the settings say'
                WHEN h.persona_id <> a.persona_id THEN 'its evidence says'
                WHEN a.reason = 'evidence' THEN 'which is not its user''s; the settings say'
                ELSE 'the settings say' END AS by_whom,
           CASE WHEN a.user_id = h.user_id AND (a.reason <> 'evidence' OR h.persona_id <> a.persona_id)
                     THEN a.persona_id
                WHEN s.unchanged THEN coalesce(s.override_now, s.default_now)
                ELSE s.frozen END AS expected,
           count(*) OVER () AS wrong_total
    FROM conversation_history h
    LEFT JOIN settings s ON s.user_id = h.user_id AND s.personality_id = h.personality_id
    LEFT JOIN memsync.row_archive a ON a.history_id = h.id
    LEFT JOIN personas p ON p.id = h.persona_id
    WHERE h.persona_id IS NOT NULL
      AND CASE
          -- Evidence counts only for personas of the row's user.
          WHEN a.reason = 'evidence'
               THEN h.persona_id <> a.persona_id OR p.owner_id IS DISTINCT FROM h.user_id
          WHEN a.history_id IS NOT NULL
               THEN h.persona_id <> a.persona_id OR h.user_id <> a.user_id
          -- The row is not in the map, or is newer. The trigger's own decisions are in the archive, so
          -- an app that knows both ids wrote this row. Its persona must be one of the user's.
          WHEN s.user_id IS NULL OR h.created_at >= s.decided_at
               THEN p.owner_id IS DISTINCT FROM h.user_id
          WHEN s.unchanged THEN h.persona_id IS DISTINCT FROM coalesce(s.override_now, s.default_now)
          ELSE h.persona_id <> s.frozen END
    ORDER BY h.id
    LIMIT _limit) w;
END $fn$;

-- Stops unless every message has a persona that exists and that the settings say.
CREATE OR REPLACE FUNCTION pg_temp.prove() RETURNS void LANGUAGE plpgsql AS $fn$
DECLARE
    _counts record;
    _wrong record;
BEGIN
    SELECT count(*) AS rows_total,
           count(DISTINCT h.persona_id) AS unique_personas,
           count(*) FILTER (WHERE h.persona_id IS NULL) AS null_persona_ids,
           count(*) FILTER (WHERE h.persona_id IS NOT NULL AND p.id IS NULL) AS unknown_persona_ids
    FROM conversation_history h LEFT JOIN personas p ON p.id = h.persona_id INTO _counts;
    IF _counts.null_persona_ids > 0 OR _counts.unknown_persona_ids > 0 THEN
        RAISE EXCEPTION '% messages have no persona, % one that does not exist',
            _counts.null_persona_ids, _counts.unknown_persona_ids
            USING HINT = 'Run the backfill again.';
    END IF;
    SELECT _total, _named INTO _wrong FROM pg_temp.wrong_rows();
    IF _wrong._total > 0 THEN
        RAISE EXCEPTION '% messages have a wrong persona: %', _wrong._total, _wrong._named
            USING HINT = 'Somebody filled them by another rule, or settings changed since. Run '
                         'memsync migrate run --existing keep, or --existing decide. user_id is '
                         'still there.';
    END IF;
END $fn$;


\if :forward
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
    IF (SELECT c.found FROM (SELECT coalesce(bool_or(n.nspname = 'memsync_shadow' AND c.oid IS NOT NULL), false) AS begun,
           coalesce(bool_or(n.nspname = 'memsync_retired' AND c.oid IS NOT NULL), false) AS cut_over,
           count(n.oid) > 0 AS found
    FROM pg_namespace n
    LEFT JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = 'conversation_history'
    WHERE n.nspname IN ('memsync_shadow', 'memsync_retired')) c) THEN
        RAISE EXCEPTION 'memsync is filling a copy of the history, or left one'
            USING HINT = 'Use memsync migrate run instead; it goes on from there.';
    END IF;
    -- This script would take over the defaults of columns that are there again and not filled yet,
    -- and the values that they had would be lost.
    IF EXISTS (SELECT FROM (VALUES ('users', 'global_persona_id'),
           ('personalities', 'llm_config_id'),
           ('personalities', 'context_window_size'),
           ('personas', 'is_global'),
           ('llm_configs', 'is_default')) AS v(t, c)
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
    SELECT string_agg(t, ', ') INTO _missing FROM unnest(ARRAY['conversation_history',
        'personalities',
        'personas',
        'users']) AS t
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
\endif


-- ==== isolate ====
SELECT :'run_isolate'::boolean AND NOT pg_temp.finished() AS ahead \gset
\if :ahead
\echo 'isolate: creates memsync''s own tables, and the index for reading by user'
DO $do$
BEGIN
    CALL pg_temp.run('users', ARRAY['CREATE SCHEMA IF NOT EXISTS memsync']);
    CALL pg_temp.run('memsync.instance', ARRAY[$q$CREATE TABLE IF NOT EXISTS memsync.instance (
    singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    id uuid NOT NULL DEFAULT gen_random_uuid())$q$,
        'INSERT INTO memsync.instance DEFAULT VALUES ON CONFLICT DO NOTHING',
        $q$CREATE TABLE IF NOT EXISTS memsync.persona_map (
    user_id uuid NOT NULL,
    personality_id uuid NOT NULL,
    persona_id uuid NOT NULL,
    reason text NOT NULL CHECK (reason IN ('override', 'default', 'created')),
    override_persona_id uuid,
    default_persona_id uuid,
    rows_count bigint NOT NULL,
    decided_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (user_id, personality_id))$q$,
        $q$CREATE TABLE IF NOT EXISTS memsync.created_persona (
    user_id uuid PRIMARY KEY,
    persona_id uuid NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    withdrawn boolean NOT NULL DEFAULT false)$q$,
        $q$CREATE TABLE IF NOT EXISTS memsync.row_archive (
    history_id uuid PRIMARY KEY,
    user_id uuid,
    persona_id uuid NOT NULL,
    reason text NOT NULL,
    source text)$q$,
        $q$CREATE TABLE IF NOT EXISTS memsync.backfill (
    fill text PRIMARY KEY CHECK (fill IN ('personas', 'users')),
    next_block bigint NOT NULL,
    end_block bigint NOT NULL,
    rows_total bigint NOT NULL,
    rows_done bigint NOT NULL,
    unresolved text NOT NULL CHECK (unresolved IN ('fail', 'create')),
    busy interval NOT NULL,
    started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp())$q$,
        $q$CREATE TABLE IF NOT EXISTS memsync.redesign_change (
    object text PRIMARY KEY,
    change text NOT NULL CHECK (change IN ('created', 'dropped')))$q$,
        $q$CREATE TABLE IF NOT EXISTS memsync.history_change (
    object text PRIMARY KEY,
    change text NOT NULL CHECK (change IN ('created', 'dropped')))$q$,
        $q$CREATE TABLE IF NOT EXISTS memsync.column_archive (
    column_name text NOT NULL,
    row_id uuid NOT NULL,
    value jsonb NOT NULL,
    PRIMARY KEY (column_name, row_id))$q$,
        $q$CREATE TABLE IF NOT EXISTS memsync.config_fork (
    fork_id uuid PRIMARY KEY,
    config_id uuid NOT NULL,
    window_size int NOT NULL,
    config_row jsonb)$q$,
        $q$CREATE TABLE IF NOT EXISTS memsync.orphan_persona (
    persona_id uuid PRIMARY KEY,
    decision text NOT NULL CHECK (decision IN ('derived', 'assigned', 'quarantined')),
    owner_id uuid,
    persona_row jsonb NOT NULL,
    used_by jsonb NOT NULL,
    decided_at timestamptz NOT NULL DEFAULT clock_timestamp())$q$,
        $q$CREATE TABLE IF NOT EXISTS memsync.runs (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    verb text NOT NULL CHECK (verb IN ('run', 'rollback', 'finalize')),
    phase text NOT NULL,
    who text NOT NULL DEFAULT session_user,
    memsync_version text NOT NULL,
    started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    ended_at timestamptz,
    outcome text,
    user_id_dropped boolean NOT NULL DEFAULT false,
    rows_filled bigint NOT NULL DEFAULT 0,
    lock_waits int NOT NULL DEFAULT 0,
    waited_s float NOT NULL DEFAULT 0,
    gates_passed boolean NOT NULL DEFAULT false,
    note text,
    options json)$q$,
        $q$CREATE TABLE IF NOT EXISTS memsync.control (
    singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    pid int NOT NULL,
    wanted text NOT NULL CHECK (wanted IN ('run', 'pause', 'cancel')),
    who text NOT NULL DEFAULT session_user,
    asked_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    heard_at timestamptz)$q$,
        $q$CREATE TABLE IF NOT EXISTS memsync.backup (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    file text NOT NULL,
    bytes bigint NOT NULL,
    sha256 text NOT NULL,
    tables text[] NOT NULL,
    history_rows bigint NOT NULL,
    snapshot text NOT NULL,
    taken_at timestamptz NOT NULL,
    who text NOT NULL DEFAULT session_user)$q$,
        'CREATE SEQUENCE IF NOT EXISTS memsync.user_id_written_at',
        $q$CREATE TABLE IF NOT EXISTS memsync.outbox (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    point_id uuid NOT NULL,
    enqueued_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    next_attempt_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    attempts int NOT NULL DEFAULT 0,
    dead boolean NOT NULL DEFAULT false,
    last_error text)$q$,
        'CREATE INDEX IF NOT EXISTS outbox_point_id_idx ON memsync.outbox (point_id)',
        $q$CREATE TABLE IF NOT EXISTS memsync.quarantine (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    plan_id uuid NOT NULL,
    collection text NOT NULL,
    point_id text NOT NULL,
    state text NOT NULL,
    payload json NOT NULL,
    vector real[],
    digest text NOT NULL,
    reason text NOT NULL,
    quarantined_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    UNIQUE (plan_id, collection, point_id, state))$q$,
        $q$CREATE TABLE IF NOT EXISTS memsync.layout (
    singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    layout text NOT NULL CHECK (layout IN ('per-persona', 'shared')),
    why text NOT NULL,
    decided_at timestamptz NOT NULL DEFAULT clock_timestamp())$q$,
        $q$ALTER TABLE memsync.layout
    ADD COLUMN IF NOT EXISTS under_way text
    CHECK (under_way IN ('copying', 'retiring', 'returning'))$q$,
        'GRANT SELECT ON memsync.layout TO PUBLIC',
        $q$CREATE TABLE IF NOT EXISTS memsync.memories (
    collection text NOT NULL,
    point_id text NOT NULL,
    anchor_id uuid,
    persona_id uuid,
    personality_id uuid,
    channel_id text,
    created_at_ms bigint,
    source bytea,
    stored bytea NOT NULL,
    state text NOT NULL DEFAULT 'live' CHECK (state IN ('live', 'archived')),
    leaving boolean NOT NULL DEFAULT false,
    noted_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (collection, point_id))$q$,
        'ALTER TABLE memsync.memories ADD COLUMN IF NOT EXISTS removed boolean NOT NULL DEFAULT false',
        'CREATE INDEX IF NOT EXISTS memories_anchor_id_idx ON memsync.memories (anchor_id)',
        $q$CREATE TABLE IF NOT EXISTS memsync.mark (
    singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    settled bigint NOT NULL DEFAULT 0,
    is_set boolean NOT NULL DEFAULT false,
    rewound_at timestamptz,
    archived_at timestamptz NOT NULL DEFAULT clock_timestamp())$q$,
        $q$CREATE TABLE IF NOT EXISTS memsync.repair (
    run_id uuid PRIMARY KEY,
    target json NOT NULL,
    actions int NOT NULL,
    who text NOT NULL DEFAULT session_user,
    memsync_version text NOT NULL,
    begun_at timestamptz NOT NULL DEFAULT clock_timestamp())$q$,
        $q$ALTER TABLE memsync.repair
    ADD COLUMN IF NOT EXISTS done_before int NOT NULL DEFAULT 0,
    ADD COLUMN IF NOT EXISTS set_aside int NOT NULL DEFAULT 0$q$,
        $q$CREATE TABLE IF NOT EXISTS memsync.journal (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    run_id uuid NOT NULL REFERENCES memsync.repair (run_id) ON DELETE CASCADE,
    collection text NOT NULL,
    point_id text NOT NULL,
    action text NOT NULL CHECK (action IN ('create', 'copy', 'put', 'patch', 'remove')),
    reason text NOT NULL,
    state_before text,
    state_after text,
    intended_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    done_at timestamptz,
    undone_at timestamptz,
    UNIQUE (run_id, collection, point_id))$q$,
        $q$ALTER TABLE memsync.journal
    ADD COLUMN IF NOT EXISTS source_collection text,
    ADD COLUMN IF NOT EXISTS source_id text,
    ADD COLUMN IF NOT EXISTS is_replaced boolean NOT NULL DEFAULT false$q$,
        'ALTER TABLE memsync.journal ADD COLUMN IF NOT EXISTS noted_before jsonb',
        $q$CREATE TABLE IF NOT EXISTS memsync.retired (
    run_id uuid NOT NULL,
    collection text NOT NULL,
    dims int NOT NULL,
    indexes json NOT NULL,
    points bigint,
    begun_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    dropped_at timestamptz,
    restored_at timestamptz,
    PRIMARY KEY (run_id, collection))$q$,
        'GRANT SELECT ON memsync.retired TO PUBLIC',
        $q$CREATE TABLE IF NOT EXISTS memsync.acknowledged (
    id bigint GENERATED ALWAYS AS IDENTITY UNIQUE,
    code text NOT NULL,
    store text NOT NULL,
    key text NOT NULL,
    state bytea NOT NULL,
    reason text NOT NULL,
    who text NOT NULL DEFAULT session_user,
    acknowledged_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (code, store, key))$q$,
        $q$CREATE TABLE IF NOT EXISTS memsync.audits (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    begun_at timestamptz NOT NULL,
    seconds float NOT NULL,
    layout text NOT NULL,
    complete boolean NOT NULL,
    counts jsonb NOT NULL,
    acknowledged bigint NOT NULL,
    settling bigint NOT NULL,
    rows_checked bigint NOT NULL,
    points_checked bigint NOT NULL,
    memsync_version text NOT NULL,
    who text NOT NULL DEFAULT session_user)$q$,
        'GRANT SELECT ON memsync.audits TO PUBLIC',
        'DROP FUNCTION IF EXISTS memsync.memory_digest(uuid, uuid, uuid, text, bigint, text)',
        $q$CREATE OR REPLACE FUNCTION memsync.memory_digest(
    point_id uuid, persona_id uuid, personality_id uuid, channel_id text,
    created_at_ms bigint, user_text text, assistant_text text)
RETURNS text LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT encode(sha256(
        int4send(9) || 'memsync-2'::bytea
        || int4send(36) || convert_to(point_id::text, 'UTF8')
        || int4send(36) || convert_to(persona_id::text, 'UTF8')
        || int4send(36) || convert_to(personality_id::text, 'UTF8')
        || int4send(octet_length(convert_to(channel_id, 'UTF8'))) || convert_to(channel_id, 'UTF8')
        || int4send(length(created_at_ms::text)) || convert_to(created_at_ms::text, 'UTF8')
        || int4send(octet_length(convert_to(user_text, 'UTF8'))) || convert_to(user_text, 'UTF8')
        || int4send(octet_length(convert_to(assistant_text, 'UTF8')))
        || convert_to(assistant_text, 'UTF8')), 'hex')
$$$q$]);
    PERFORM pg_temp.begin_phase('isolate');
    IF pg_temp.has_users() THEN
        CALL pg_temp.note_created(ARRAY['conversation_history_channel_id_personality_id_user_id_crea_idx']);
    END IF;
END $do$;

SELECT pg_temp.index_work('conversation_history', 'conversation_history_channel_id_personality_id_user_id_crea_idx',
    $q$CREATE INDEX CONCURRENTLY conversation_history_channel_id_personality_id_user_id_crea_idx
    ON conversation_history (channel_id, personality_id, user_id, created_at DESC, id DESC)$q$)
WHERE pg_temp.has_users()
\gexec

DO $do$ BEGIN PERFORM pg_temp.end_phase(); END $do$;
\endif


-- ==== redesign ====
SELECT :'run_redesign'::boolean AND NOT pg_temp.finished() AS ahead \gset
\if :ahead
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
            replace($q$CREATE TABLE {schema}.user_default_personas (
    user_id uuid NOT NULL,
    persona_id uuid NOT NULL,
    updated_at timestamp(3) NOT NULL,
    CONSTRAINT user_default_personas_pkey PRIMARY KEY (user_id),
    CONSTRAINT user_default_personas_user_id_fkey FOREIGN KEY (user_id)
        REFERENCES users (id) ON DELETE CASCADE ON UPDATE CASCADE,
    CONSTRAINT user_default_personas_persona_id_fkey FOREIGN KEY (persona_id)
        REFERENCES personas (id) ON DELETE CASCADE ON UPDATE CASCADE)$q$,
                    '{schema}', quote_ident(pg_temp.schema_of('users'))),
            $q$CREATE UNIQUE INDEX user_default_personas_user_id_key ON user_default_personas (user_id)$q$]
            || pg_temp.grants_like('user_default_personas', 'users', 'global_persona_id')
            || pg_temp.noted('user_default_personas', 'created'));
    END IF;
    IF NOT pg_temp.is_table('personality_default_configs') THEN
        CALL pg_temp.run('personalities', ARRAY[
            replace($q$CREATE TABLE {schema}.personality_default_configs (
    personality_id uuid NOT NULL,
    llm_config_id uuid NOT NULL,
    updated_at timestamp(3) NOT NULL,
    CONSTRAINT personality_default_configs_pkey PRIMARY KEY (personality_id),
    CONSTRAINT personality_default_configs_personality_id_fkey FOREIGN KEY (personality_id)
        REFERENCES personalities (id) ON DELETE CASCADE ON UPDATE CASCADE,
    CONSTRAINT personality_default_configs_llm_config_id_fkey FOREIGN KEY (llm_config_id)
        REFERENCES llm_configs (id) ON DELETE CASCADE ON UPDATE CASCADE)$q$,
                    '{schema}', quote_ident(pg_temp.schema_of('personalities'))),
            $q$CREATE UNIQUE INDEX personality_default_configs_personality_id_key
    ON personality_default_configs (personality_id)$q$]
            || pg_temp.grants_like('personality_default_configs', 'personalities', 'llm_config_id')
            || pg_temp.noted('personality_default_configs', 'created'));
    END IF;
    -- A new column starts with the values that a rollback archived, else with those of old columns.
    IF NOT pg_temp.has_column('llm_configs', 'owner_id') THEN
        CALL pg_temp.run('llm_configs', ARRAY[
            $q$ALTER TABLE llm_configs ADD COLUMN owner_id uuid$q$,
            $q$UPDATE llm_configs c SET owner_id = u.id
FROM memsync.column_archive a JOIN users u ON u.id = (a.value #>> '{}')::uuid
WHERE a.column_name = 'llm_configs.owner_id' AND a.row_id = c.id$q$,
            pg_temp.noted('llm_configs.owner_id', 'created')]);
    END IF;
    IF NOT pg_temp.has_column('llm_configs', 'is_global') THEN
        _fills := ARRAY[$q$UPDATE llm_configs c SET is_global = a.value::boolean
FROM memsync.column_archive a
WHERE a.column_name = 'llm_configs.is_global' AND a.row_id = c.id$q$];
        IF pg_temp.has_column('llm_configs', 'is_default') THEN
            _fills := $q$UPDATE llm_configs SET is_global = true WHERE is_default$q$::text || _fills;
        END IF;
        CALL pg_temp.run('llm_configs',
            $q$ALTER TABLE llm_configs ADD COLUMN is_global boolean NOT NULL DEFAULT false$q$::text || _fills
            || pg_temp.noted('llm_configs.is_global', 'created'));
    END IF;
    IF NOT pg_temp.has_column('llm_configs', 'context_window_size') THEN
        CALL pg_temp.run('llm_configs', ARRAY[
            $q$ALTER TABLE llm_configs ADD COLUMN context_window_size integer NOT NULL DEFAULT 20$q$,
            $q$UPDATE llm_configs c SET context_window_size = a.value::int
FROM memsync.column_archive a
WHERE a.column_name = 'llm_configs.context_window_size' AND a.row_id = c.id$q$,
            pg_temp.noted('llm_configs.context_window_size', 'created')]);
    END IF;
    IF pg_temp.is_valid('llm_configs', 'llm_configs_owner_id_fkey') IS NULL THEN
        CALL pg_temp.run('llm_configs', ARRAY[
            pg_temp.noted('llm_configs_owner_id_fkey', 'created')]);
    END IF;
    CALL pg_temp.foreign_key('llm_configs', 'owner_id', 'users');
    CALL pg_temp.run('llm_configs', ARRAY[$q$UPDATE llm_configs c SET owner_id = NULL
WHERE owner_id IS NOT NULL AND NOT EXISTS (SELECT FROM users u WHERE u.id = c.owner_id)$q$]);
    CALL pg_temp.validate('llm_configs', 'llm_configs_owner_id_fkey');
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
    SELECT replace(replace($q$CREATE VIEW {schema}.user_personality_settings WITH (security_invoker) AS
SELECT {columns} FROM user_personality_configs$q$,
                           '{schema}', quote_ident(pg_temp.schema_of(_relation))),
                   '{columns}', string_agg(quote_ident(c.name), ', '))
    INTO _view FROM (SELECT attname AS name, attnotnull AS not_null
    FROM pg_attribute
    WHERE attrelid = to_regclass(_relation) AND attnum > 0 AND NOT attisdropped
    ORDER BY attnum) c;
    IF pg_temp.is_table('user_personality_configs') THEN
        _how := 'merged';
        SELECT replace($q$INSERT INTO user_personality_configs ({columns}) SELECT {columns} FROM user_personality_settings
ON CONFLICT DO NOTHING$q$, '{columns}',
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
            || coalesce(array_agg(replace(replace(
                CASE kind WHEN 'index' THEN 'ALTER INDEX {old} RENAME TO {new}'
                ELSE 'ALTER TABLE user_personality_configs RENAME CONSTRAINT {old} TO {new}' END,
                '{old}', quote_ident(name)), '{new}',
                quote_ident('user_personality_configs_' || substr(name, length(_prefix) + 1)))),
                '{}')
        INTO _move FROM (SELECT 'constraint' AS kind, conname::text AS name FROM pg_constraint
        WHERE conrelid = to_regclass(_relation) AND starts_with(conname, _prefix)
        UNION ALL
        SELECT 'index', c.relname::text FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
        WHERE i.indrelid = to_regclass(_relation) AND starts_with(c.relname, _prefix)
          AND NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conindid = i.indexrelid)) n;
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
        $q$CREATE OR REPLACE FUNCTION memsync.is_waited_for() RETURNS boolean
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog AS $$
    SELECT EXISTS (SELECT FROM pg_locks w
                   WHERE NOT w.granted AND pg_backend_pid() = ANY (pg_blocking_pids(w.pid)))
$$$q$,
        pg_temp.settings_filled($q$CREATE OR REPLACE FUNCTION memsync.sync_place() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = {search_path} AS $$
DECLARE
    allowed text := current_setting('lock_timeout');
    since timestamptz := clock_timestamp();
BEGIN
    LOOP
        BEGIN
            PERFORM set_config('lock_timeout', TG_ARGV[0], true);
            CASE TG_TABLE_NAME
            WHEN 'users' THEN
                PERFORM memsync.sync_default(NEW.id, NEW.global_persona_id, NEW.updated_at);
            WHEN 'personalities' THEN
                PERFORM memsync.sync_config(
                    NEW.id, NEW.llm_config_id, {window}, NEW.updated_at);
            WHEN 'user_default_personas' THEN
                PERFORM memsync.sync_default_chosen(
                    OLD.user_id, OLD.persona_id, OLD.updated_at, NEW.user_id, NEW.persona_id);
            WHEN 'personality_default_configs' THEN
                PERFORM memsync.sync_config_chosen(
                    OLD.personality_id, OLD.llm_config_id, OLD.updated_at,
                    NEW.personality_id, NEW.llm_config_id);
            END CASE;
            PERFORM set_config('lock_timeout', allowed, true);
            RETURN NULL;
        EXCEPTION WHEN lock_not_available OR deadlock_detected THEN
            IF memsync.is_waited_for() THEN
                RETURN NULL;
            END IF;
            IF allowed <> '0' AND clock_timestamp() > since + allowed::interval THEN
                RAISE;
            END IF;
        END;
    END LOOP;
END $$$q$),
        pg_temp.settings_filled($q$CREATE OR REPLACE FUNCTION memsync.sync_lock_new_place() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = {search_path} AS $$
BEGIN
    IF TG_TABLE_NAME = 'personas' THEN
        PERFORM FROM user_default_personas WHERE persona_id = OLD.id ORDER BY user_id FOR UPDATE;
    ELSE
        PERFORM FROM personality_default_configs WHERE llm_config_id = OLD.id
        ORDER BY personality_id FOR UPDATE;
    END IF;
    RETURN OLD;
END $$$q$),
        pg_temp.settings_filled($q$CREATE OR REPLACE FUNCTION memsync.sync_default(of_user uuid, persona uuid, at timestamp)
RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = {search_path} AS $$
BEGIN
    IF persona IS NULL THEN
        DELETE FROM user_default_personas WHERE user_id = of_user;
    ELSE
        INSERT INTO user_default_personas (user_id, persona_id, updated_at)
        VALUES (of_user, persona, at)
        ON CONFLICT (user_id) DO UPDATE SET persona_id = excluded.persona_id,
                                          updated_at = excluded.updated_at
        WHERE user_default_personas.persona_id <> excluded.persona_id;
    END IF;
END $$$q$),
        pg_temp.settings_filled($q$CREATE OR REPLACE FUNCTION memsync.sync_default_chosen(
    was_of uuid, was uuid, at timestamp, of_user uuid, persona uuid)
RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = {search_path} AS $$
DECLARE
    standing uuid;
BEGIN
    IF was_of <> of_user OR of_user IS NULL THEN
        SELECT global_persona_id INTO standing FROM users WHERE id = was_of FOR NO KEY UPDATE;
        IF standing = was THEN
            UPDATE users SET global_persona_id = NULL WHERE id = was_of;
        ELSIF standing IS NOT NULL THEN
            /* Another default was written there while this one was deleted. */
            INSERT INTO user_default_personas (user_id, persona_id, updated_at)
            VALUES (was_of, standing, at) ON CONFLICT (user_id) DO NOTHING;
        END IF;
    END IF;
    IF of_user IS NOT NULL THEN
        PERFORM FROM users WHERE id = of_user FOR NO KEY UPDATE;
        UPDATE users SET global_persona_id = persona
        WHERE id = of_user AND global_persona_id IS DISTINCT FROM persona;
    END IF;
END $$$q$),
        pg_temp.settings_filled($q$CREATE OR REPLACE FUNCTION memsync.config_with_window(
    of_config uuid, wanted_size int, for_personality uuid)
RETURNS uuid LANGUAGE plpgsql SECURITY DEFINER
SET search_path = {search_path} AS $$
DECLARE
    standing int;
    original uuid;
    forked uuid;
BEGIN
    /* Callers that agree with the config share its lock; the others decide one at a time. */
    PERFORM FROM llm_configs
    WHERE id = of_config AND context_window_size = wanted_size FOR SHARE;
    IF FOUND THEN
        RETURN of_config;
    END IF;
    SELECT coalesce(
        (SELECT f.config_id FROM memsync.config_fork f JOIN llm_configs c ON c.id = f.config_id
         WHERE f.fork_id = of_config), of_config) INTO original;
    PERFORM FROM llm_configs WHERE id = original FOR NO KEY UPDATE;
    SELECT context_window_size INTO standing FROM llm_configs
    WHERE id = of_config FOR NO KEY UPDATE;
    IF NOT FOUND OR standing = wanted_size THEN
        RETURN of_config;
    END IF;
    IF NOT EXISTS (SELECT FROM personalities
                   WHERE llm_config_id = of_config AND id <> for_personality)
       AND NOT EXISTS (SELECT FROM personality_default_configs
                       WHERE llm_config_id = of_config AND personality_id <> for_personality)
       AND NOT EXISTS (SELECT FROM user_personality_configs WHERE llm_config_id = of_config) THEN
        UPDATE llm_configs SET context_window_size = wanted_size WHERE id = of_config;
        RETURN of_config;
    END IF;
    SELECT c.id INTO forked FROM llm_configs c
    WHERE c.context_window_size = wanted_size
      AND (c.id = original OR c.id IN (SELECT f.fork_id FROM memsync.config_fork f
                                       WHERE f.config_id = original))
    ORDER BY c.id = original DESC, c.id LIMIT 1;
    IF FOUND THEN
        RETURN forked;
    END IF;
    /* Each run makes the same id, unless a config that was changed since has it. */
    forked := md5(original::text || '/' || wanted_size)::uuid;
    IF EXISTS (SELECT FROM llm_configs WHERE id = forked) THEN
        forked := gen_random_uuid();
    END IF;
    INSERT INTO llm_configs ({config_columns})
    SELECT {config_columns} FROM (
        SELECT (jsonb_populate_record(c, jsonb_build_object(
            'id', forked, 'name', left(c.name, 230) || ' (window ' || wanted_size || ')',
            'context_window_size', wanted_size, 'is_default', false))).*
        FROM llm_configs c WHERE c.id = original) AS fork;
    INSERT INTO memsync.config_fork (fork_id, config_id, window_size)
    VALUES (forked, original, wanted_size) ON CONFLICT (fork_id) DO UPDATE SET config_row = NULL;
    RETURN forked;
END $$$q$),
        pg_temp.settings_filled($q$CREATE OR REPLACE FUNCTION memsync.sync_config(
    of_personality uuid, config uuid, size int, at timestamp)
RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = {search_path} AS $$
DECLARE
    chosen uuid := config;
BEGIN
    IF config IS NULL THEN
        DELETE FROM personality_default_configs WHERE personality_id = of_personality;
        RETURN;
    END IF;
    IF size IS NOT NULL THEN
        chosen := memsync.config_with_window(config, size, of_personality);
    END IF;
    INSERT INTO personality_default_configs (personality_id, llm_config_id, updated_at)
    VALUES (of_personality, chosen, at)
    ON CONFLICT (personality_id) DO UPDATE SET llm_config_id = excluded.llm_config_id,
                                               updated_at = excluded.updated_at
    WHERE personality_default_configs.llm_config_id <> excluded.llm_config_id;
    UPDATE personalities SET llm_config_id = chosen
    WHERE id = of_personality AND llm_config_id = config AND llm_config_id <> chosen;
END $$$q$),
        pg_temp.settings_filled($q$CREATE OR REPLACE FUNCTION memsync.sync_config_chosen(
    was_of uuid, was uuid, at timestamp, of_personality uuid, config uuid)
RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = {search_path} AS $$
DECLARE
    standing uuid;
    size int;
BEGIN
    IF was_of <> of_personality OR of_personality IS NULL THEN
        SELECT llm_config_id INTO standing FROM personalities WHERE id = was_of FOR NO KEY UPDATE;
        IF standing = was THEN
            UPDATE personalities SET llm_config_id = NULL WHERE id = was_of;
        ELSIF standing IS NOT NULL THEN
            /* Another config was written there while this one was deleted. */
            INSERT INTO personality_default_configs (personality_id, llm_config_id, updated_at)
            VALUES (was_of, standing, at) ON CONFLICT (personality_id) DO NOTHING;
        END IF;
    END IF;
    IF of_personality IS NOT NULL THEN
        SELECT context_window_size INTO size FROM llm_configs WHERE id = config FOR SHARE;
        PERFORM FROM personalities WHERE id = of_personality FOR NO KEY UPDATE;
        UPDATE personalities SET llm_config_id = config{take_window}
        WHERE id = of_personality AND (llm_config_id IS DISTINCT FROM config{other_window});
    END IF;
END $$$q$),
        pg_temp.settings_filled($q$CREATE OR REPLACE FUNCTION memsync.sync_window_of_config() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = {search_path} AS $$
BEGIN
    UPDATE personalities SET context_window_size = NEW.context_window_size
    WHERE llm_config_id = NEW.id AND context_window_size <> NEW.context_window_size;
    RETURN NULL;
END $$$q$),
        pg_temp.settings_filled($q$CREATE OR REPLACE FUNCTION memsync.sync_default_is_global() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = {search_path} AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        NEW.is_global := NEW.is_global OR NEW.is_default;
    ELSIF NEW.is_default <> OLD.is_default AND NEW.is_global = OLD.is_global THEN
        NEW.is_global := NEW.is_default;
    END IF;
    RETURN NEW;
END $$$q$),
        $q$REVOKE ALL ON FUNCTION memsync.is_waited_for(), memsync.config_with_window(uuid, int, uuid),
    memsync.sync_default(uuid, uuid, timestamp), memsync.sync_config(uuid, uuid, int, timestamp),
    memsync.sync_default_chosen(uuid, uuid, timestamp, uuid, uuid),
    memsync.sync_config_chosen(uuid, uuid, timestamp, uuid, uuid), memsync.sync_place(),
    memsync.sync_lock_new_place(), memsync.sync_window_of_config(),
    memsync.sync_default_is_global() FROM PUBLIC$q$]);
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
    WHERE NOT EXISTS (SELECT FROM (SELECT f.config_row || jsonb_build_object('owner_id', (
               SELECT u.id FROM users u WHERE u.id::text = f.config_row ->> 'owner_id')) AS kept
    FROM memsync.config_fork f JOIN llm_configs c ON c.id = f.config_id
    WHERE f.config_row IS NOT NULL) k WHERE NOT k.kept ? i.name);
    IF EXISTS (SELECT f.config_row || jsonb_build_object('owner_id', (
               SELECT u.id FROM users u WHERE u.id::text = f.config_row ->> 'owner_id')) AS kept
    FROM memsync.config_fork f JOIN llm_configs c ON c.id = f.config_id
    WHERE f.config_row IS NOT NULL) THEN
        EXECUTE replace(replace(replace($q$INSERT INTO {target} ({columns}) SELECT {columns} FROM
(SELECT (jsonb_populate_record(NULL::{target}, k.kept)).* FROM {rows_kept} AS k) AS again
ON CONFLICT (id) DO NOTHING$q$,
            '{target}', 'llm_configs'), '{columns}', _columns),
            '{rows_kept}', $q$(SELECT f.config_row || jsonb_build_object('owner_id', (
           SELECT u.id FROM users u WHERE u.id::text = f.config_row ->> 'owner_id')) AS kept
FROM memsync.config_fork f JOIN llm_configs c ON c.id = f.config_id
WHERE f.config_row IS NOT NULL)$q$);
    END IF;
    UPDATE personalities p SET llm_config_id = f.fork_id
    FROM memsync.column_archive a
    JOIN memsync.config_fork f ON to_jsonb(f.fork_id) = a.value
    JOIN llm_configs c ON c.id = f.fork_id
    WHERE a.column_name = 'personalities.llm_config_id' AND a.row_id = p.id AND p.llm_config_id = f.config_id
      AND p.context_window_size = c.context_window_size;
    UPDATE user_personality_configs u SET llm_config_id = f.fork_id
    FROM memsync.column_archive a
    JOIN memsync.config_fork f ON to_jsonb(f.fork_id) = a.value
    JOIN llm_configs c ON c.id = f.fork_id
    WHERE a.column_name = 'user_personality_configs.llm_config_id' AND a.row_id = u.id
      AND u.llm_config_id = f.config_id;
    WITH gone AS (DELETE FROM memsync.column_archive
                  WHERE column_name IN ('personalities.llm_config_id',
                                  'user_personality_configs.llm_config_id'))
    UPDATE memsync.config_fork SET config_row = NULL WHERE config_row IS NOT NULL;
END $fn$;

CREATE OR REPLACE FUNCTION pg_temp.copy_defaults(_after uuid, _limit int)
RETURNS uuid LANGUAGE plpgsql AS $fn$
DECLARE
    _last uuid;
BEGIN
    WITH batch AS (
        SELECT id, global_persona_id, updated_at FROM users
        WHERE _after::uuid IS NULL OR id > _after
        ORDER BY id LIMIT _limit FOR SHARE),
    copied AS (
        INSERT INTO user_default_personas (user_id, persona_id, updated_at)
        SELECT id, global_persona_id, updated_at FROM batch WHERE global_persona_id IS NOT NULL
        ON CONFLICT (user_id) DO NOTHING)
    SELECT max(id::text)::uuid AS last FROM batch INTO _last;
    RETURN _last;
END $fn$;

-- Two statements, because the second sees what was written before the first had its locks.
CREATE OR REPLACE FUNCTION pg_temp.copy_defaults_back(_after uuid, _limit int)
RETURNS uuid LANGUAGE plpgsql AS $fn$
DECLARE
    _last uuid;
BEGIN
    WITH batch AS (
        SELECT id FROM users WHERE _after::uuid IS NULL OR id > _after
        ORDER BY id LIMIT _limit FOR NO KEY UPDATE)
    SELECT max(id::text)::uuid AS last FROM batch INTO _last;
    UPDATE users u SET global_persona_id = d.persona_id FROM user_default_personas d
    WHERE d.user_id = u.id AND u.id <= _last AND (_after::uuid IS NULL OR u.id > _after)
      AND u.global_persona_id IS DISTINCT FROM d.persona_id;
    RETURN _last;
END $fn$;

CREATE OR REPLACE FUNCTION pg_temp.place_configs(_limit int) RETURNS bigint LANGUAGE plpgsql AS $fn$
DECLARE
    _placed bigint;
BEGIN
    WITH batch AS (
        SELECT p.id FROM personalities p
        WHERE p.llm_config_id IS NOT NULL
          AND NOT EXISTS (SELECT FROM personality_default_configs d WHERE d.personality_id = p.id)
        ORDER BY p.id LIMIT _limit)
    UPDATE personalities SET llm_config_id = llm_config_id WHERE id IN (SELECT id FROM batch);
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
            CALL pg_temp.run('llm_configs', ARRAY[$q$UPDATE llm_configs c SET context_window_size = m.window_size
FROM (SELECT DISTINCT ON (p.config_id) p.config_id, p.window_size
      FROM (SELECT coalesce(d.llm_config_id, p.llm_config_id) AS config_id,
                   p.context_window_size AS window_size
            FROM personalities p
            LEFT JOIN personality_default_configs d ON d.personality_id = p.id) p
      LEFT JOIN memsync.column_archive a
             ON a.column_name = 'llm_configs.context_window_size' AND a.row_id = p.config_id
      WHERE p.config_id IS NOT NULL
      GROUP BY p.config_id, p.window_size, a.value
      ORDER BY p.config_id, a.value = to_jsonb(p.window_size) DESC NULLS LAST, count(*) DESC,
               p.window_size) m
WHERE c.id = m.config_id AND c.context_window_size <> m.window_size$q$,
                                                  $q$INSERT INTO memsync.redesign_change (object, change) VALUES ('sized', 'created') ON CONFLICT DO NOTHING$q$]);
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
                    $q$SELECT set_config('memsync.copying_settings', 'on', true) AS passed,
       set_config('plan_cache_mode', 'force_custom_plan', true) AS planned$q$,
                    format('SELECT pg_temp.%I(%L, %s)', _step, _last, _batch)], _last);
                EXIT WHEN _last IS NULL;
            END LOOP;
        END LOOP;
    END IF;
    IF pg_temp.has_column('personalities', 'llm_config_id') THEN
        CALL pg_temp.run('personalities', ARRAY[
            CASE WHEN _windows AND NOT _sized THEN $q$UPDATE personalities p SET llm_config_id = c.id, context_window_size = c.context_window_size
FROM personality_default_configs d JOIN llm_configs c ON c.id = d.llm_config_id
WHERE d.personality_id = p.id
  AND (p.llm_config_id, p.context_window_size) IS DISTINCT FROM (c.id, c.context_window_size)$q$
            ELSE $q$UPDATE personalities p SET llm_config_id = d.llm_config_id FROM personality_default_configs d
WHERE d.personality_id = p.id AND p.llm_config_id IS DISTINCT FROM d.llm_config_id$q$ END]);
        IF _windows THEN
            CALL pg_temp.run('personalities', ARRAY[$q$UPDATE personalities p SET context_window_size = p.context_window_size
FROM llm_configs c
WHERE c.id = p.llm_config_id AND c.context_window_size <> p.context_window_size$q$]);
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
    IF pg_temp.has_index('system_prompts', 'idx_system_prompts_default')
       AND NOT pg_temp.has_index('system_prompts', 'system_prompts_is_default_idx') THEN
        CALL pg_temp.run('system_prompts', ARRAY[
            'ALTER INDEX idx_system_prompts_default RENAME TO system_prompts_is_default_idx',
            pg_temp.noted('system_prompts_is_default_idx', 'created')]);
    END IF;
    FOR _step, _last IN SELECT t, i FROM (VALUES ('user_default_personas', 'user_default_personas_persona_id_idx'),
           ('personality_default_configs', 'personality_default_configs_llm_config_id_idx'),
           ('llm_configs', 'llm_configs_owner_id_idx'),
           ('llm_configs', 'llm_configs_is_global_idx')) AS v(t, i) LOOP
        IF NOT pg_temp.has_index(_step, _last) THEN
            CALL pg_temp.run(_step, ARRAY[pg_temp.noted(_last, 'created')]);
        END IF;
    END LOOP;
END $do$;

SELECT pg_temp.index_work(t, i, replace(replace(replace($q$CREATE INDEX CONCURRENTLY {index} ON {table} ({column})$q$,
    '{index}', quote_ident(i)), '{table}', quote_ident(t)), '{column}', quote_ident(c)))
FROM (VALUES ('user_default_personas', 'user_default_personas_persona_id_idx', 'persona_id'),
           ('personality_default_configs', 'personality_default_configs_llm_config_id_idx', 'llm_config_id'),
           ('llm_configs', 'llm_configs_owner_id_idx', 'owner_id'),
           ('llm_configs', 'llm_configs_is_global_idx', 'is_global')) AS v(t, i, c)
\gexec

DO $do$ BEGIN PERFORM pg_temp.end_phase(); END $do$;
\endif


-- ==== expand ====
SELECT :'run_expand'::boolean AND NOT pg_temp.finished() AS ahead \gset
\if :ahead
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
            pg_temp.filled($q$CREATE OR REPLACE VIEW memsync.persona_override AS {override}$q$),
            pg_temp.filled($q$CREATE OR REPLACE VIEW memsync.persona_default AS {default}$q$),
            pg_temp.pinned(pg_temp.filled($q$CREATE OR REPLACE FUNCTION memsync.create_default_persona(for_user uuid)
RETURNS uuid LANGUAGE plpgsql SECURITY DEFINER
SET search_path = {search_path} AS $$
DECLARE
    created uuid;
    called text;
BEGIN
    SELECT username INTO called FROM users WHERE id = for_user FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    SELECT persona_id INTO created FROM memsync.persona_default WHERE user_id = for_user;
    IF created IS NOT NULL THEN
        RETURN created;
    END IF;
    -- One that a rollback withdrew comes back under its id.
    SELECT persona_id INTO created FROM memsync.created_persona
    WHERE user_id = for_user AND withdrawn;
    created := coalesce(created, gen_random_uuid());
    INSERT INTO personas (id, name, description, content, owner_id, created_at, updated_at)
    VALUES (created, left(called, 244) || '''s Persona', 'Default persona', '', for_user,
            timezone('UTC', clock_timestamp()), timezone('UTC', clock_timestamp()));
    {set_default};
    INSERT INTO memsync.created_persona (user_id, persona_id) VALUES (for_user, created)
    ON CONFLICT (user_id) DO UPDATE SET persona_id = excluded.persona_id, withdrawn = false;
    RETURN created;
END $$$q$)),
            pg_temp.pinned($q$CREATE OR REPLACE FUNCTION memsync.sync_identity()
RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = {search_path} AS $$
DECLARE
    frozen uuid;
    owner uuid;
    standing record;
BEGIN
    -- An INSERT of a row that exists (ON CONFLICT) decides and archives nothing.
    IF TG_OP = 'INSERT' THEN
        SELECT user_id, persona_id INTO standing FROM conversation_history WHERE id = NEW.id;
        IF FOUND THEN
            NEW.user_id := coalesce(NEW.user_id, standing.user_id);
            NEW.persona_id := coalesce(NEW.persona_id, standing.persona_id);
            RETURN NEW;
        END IF;
    END IF;
    IF NEW.user_id IS NULL THEN
        SELECT coalesce(
            (SELECT a.user_id FROM memsync.row_archive a JOIN users u ON u.id = a.user_id
             WHERE a.history_id = NEW.id),
            (SELECT owner_id FROM personas WHERE id = NEW.persona_id))
        INTO NEW.user_id;
    END IF;
    SELECT persona_id INTO frozen FROM memsync.persona_map
    WHERE user_id = NEW.user_id AND personality_id = NEW.personality_id;
    -- An old row that is edited before the fill has started is left to the fill.
    IF NEW.persona_id IS NULL AND TG_OP = 'UPDATE' AND OLD.persona_id IS NULL
       AND NOT EXISTS (SELECT FROM memsync.backfill WHERE fill = 'personas') THEN
        RETURN NEW;
    END IF;
    IF NEW.persona_id IS NULL AND TG_OP = 'UPDATE' THEN
        -- As in the fill, the archive decides, else the map. Only personas that exist count,
        -- because a decision may outlive its persona until the next pass.
        SELECT coalesce(
            (SELECT p.id FROM memsync.row_archive a JOIN personas p ON p.id = a.persona_id
             WHERE a.history_id = NEW.id),
            (SELECT id FROM personas WHERE id = frozen))
        INTO NEW.persona_id;
    END IF;
    IF NEW.persona_id IS NULL THEN
        SELECT coalesce(
            (SELECT persona_id FROM memsync.persona_override
             WHERE user_id = NEW.user_id AND personality_id = NEW.personality_id),
            (SELECT persona_id FROM memsync.persona_default WHERE user_id = NEW.user_id))
        INTO NEW.persona_id;
    END IF;
    IF NEW.persona_id IS NULL
       AND EXISTS (SELECT FROM memsync.backfill
                   WHERE fill = 'personas' AND unresolved = 'create') THEN
        NEW.persona_id := memsync.create_default_persona(NEW.user_id);
    END IF;
    SELECT owner_id INTO owner FROM personas WHERE id = NEW.persona_id;
    IF NEW.persona_id IS NOT NULL
       AND (frozen IS DISTINCT FROM NEW.persona_id OR owner IS DISTINCT FROM NEW.user_id) THEN
        INSERT INTO memsync.row_archive AS a (history_id, user_id, persona_id, reason)
        VALUES (NEW.id, NEW.user_id, NEW.persona_id, 'written-live')
        ON CONFLICT (history_id) DO UPDATE
        SET user_id = excluded.user_id, persona_id = excluded.persona_id,
            reason = CASE WHEN a.persona_id = excluded.persona_id THEN a.reason
                          ELSE excluded.reason END,
            source = CASE WHEN a.persona_id = excluded.persona_id THEN a.source END;
    END IF;
    RETURN NEW;
END $$$q$),
            $q$CREATE OR REPLACE FUNCTION memsync.record_user_write()
RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    this_second CONSTANT bigint := floor(extract(epoch FROM clock_timestamp()));
BEGIN
    PERFORM FROM memsync.user_id_written_at WHERE is_called AND last_value >= this_second;
    IF NOT FOUND THEN
        PERFORM setval('memsync.user_id_written_at', this_second);
    END IF;
    RETURN NEW;
END $$$q$,
            $q$REVOKE ALL ON FUNCTION memsync.create_default_persona(uuid), memsync.sync_identity(),
    memsync.record_user_write() FROM PUBLIC$q$];
    END IF;
    IF NOT pg_temp.has_column('conversation_history', 'persona_id') THEN
        _statements := _statements || ARRAY['ALTER TABLE conversation_history ADD COLUMN persona_id uuid',
            pg_temp.noted_of_history('persona_id', 'created')];
    END IF;
    IF pg_temp.has_column('conversation_history', 'user_id') THEN
        IF NOT pg_temp.has_trigger('conversation_history', 'memsync_record_user_write') THEN
            _statements := _statements || ARRAY[
                $q$CREATE TRIGGER memsync_record_user_write BEFORE INSERT ON conversation_history
    FOR EACH ROW WHEN (NEW.user_id IS NOT NULL) EXECUTE FUNCTION memsync.record_user_write()$q$,
                $q$SELECT setval('memsync.user_id_written_at', floor(extract(epoch FROM clock_timestamp()))::bigint,
              false)$q$];
        END IF;
        IF NOT pg_temp.has_trigger('conversation_history', 'memsync_sync_identity') THEN
            _statements := _statements || $q$CREATE TRIGGER memsync_sync_identity BEFORE INSERT OR UPDATE ON conversation_history
    FOR EACH ROW WHEN (NEW.persona_id IS NULL OR NEW.user_id IS NULL)
    EXECUTE FUNCTION memsync.sync_identity()$q$::text;
        END IF;
    END IF;
    -- One transaction, because a script that is cut short must leave all of it or nothing.
    IF _statements <> '{}' THEN
        CALL pg_temp.run('conversation_history', _statements);
    END IF;
    PERFORM pg_temp.end_phase();
END $do$;
\endif


-- ==== backfill ====
SELECT :'run_backfill'::boolean AND NOT pg_temp.finished() AS ahead \gset
\if :ahead
\echo 'backfill: decides every (user, personality), fills persona_id, builds indexes and key'
CREATE OR REPLACE FUNCTION pg_temp.history_blocks() RETURNS bigint LANGUAGE sql AS $fn$
    SELECT blocks + 1 FROM (SELECT pg_relation_size(to_regclass('conversation_history'))
           / current_setting('block_size')::int AS blocks) s
$fn$;

-- Decides every (user, personality) that is not decided yet: by the choice of the user for the
-- personality, else by the default of the user. SQL has no evidence from long-term memory.
CREATE OR REPLACE PROCEDURE pg_temp.freeze() LANGUAGE plpgsql AS $fn$
DECLARE
    _without uuid[] := '{}';
    _user uuid;
BEGIN
    -- A decision whose persona was deleted would be filled in, and a standing key would refuse it.
    WITH gone AS (DELETE FROM memsync.row_archive a
                  WHERE NOT EXISTS (SELECT FROM personas p WHERE p.id = a.persona_id))
    DELETE FROM memsync.persona_map m
    WHERE NOT EXISTS (SELECT FROM personas p WHERE p.id = m.persona_id);
    COMMIT;
    FOR _user IN
        WITH pairs AS MATERIALIZED (
            SELECT p.user_id, p.personality_id, p.rows_count, p.has_open, p.has_since,
                   o.persona_id AS override, d.persona_id AS fallback
            FROM (SELECT h.user_id, h.personality_id, count(*) AS rows_count,
                         bool_or(h.persona_id IS NULL AND k.history_id IS NULL) AS has_open,
                         bool_or(h.persona_id IS NULL AND k.history_id IS NULL AND h.created_at >= (SELECT max(coalesce(ended_at, started_at)) FROM memsync.runs
                         WHERE verb = 'rollback' AND phase = 'expand') AT TIME ZONE 'UTC')
                             AS has_since
                  FROM conversation_history h
                  LEFT JOIN (SELECT a.history_id, a.persona_id
        FROM memsync.row_archive a JOIN personas p ON p.id = a.persona_id) k ON k.history_id = h.id
                  GROUP BY h.user_id, h.personality_id) p
            LEFT JOIN memsync.persona_override o USING (user_id, personality_id)
            LEFT JOIN memsync.persona_default d USING (user_id)
        ), decided AS (
            INSERT INTO memsync.persona_map
                   (user_id, personality_id, persona_id, reason, override_persona_id, default_persona_id,
                    rows_count)
            SELECT p.user_id, p.personality_id, coalesce(p.override, p.fallback),
                   CASE WHEN p.override IS NOT NULL THEN 'override'
                        WHEN c.user_id IS NOT NULL THEN 'created'
                        ELSE 'default' END,
                   p.override, p.fallback, p.rows_count
            FROM pairs p
            LEFT JOIN memsync.created_persona c
                   ON c.user_id = p.user_id AND c.persona_id = p.fallback
            WHERE coalesce(p.override, p.fallback) IS NOT NULL
            ON CONFLICT (user_id, personality_id) DO NOTHING
        )
        SELECT DISTINCT p.user_id
        FROM pairs p LEFT JOIN memsync.persona_map m USING (user_id, personality_id)
        WHERE coalesce(p.override, p.fallback) IS NULL AND (p.has_since OR p.has_open AND m.user_id IS NULL)
        ORDER BY p.user_id
    LOOP
        _without := _without || _user;
    END LOOP;
    COMMIT;
    IF cardinality(_without) > 0 AND current_setting('memsync.unresolved') = 'fail' THEN
        RAISE EXCEPTION '% users have no persona. They are: %', cardinality(_without),
            left(array_to_string(_without, ', '), 1000)
            USING HINT = 'Give them one, or run this again with -v unresolved=create to make a '
                         'default persona for each.';
    END IF;
    FOREACH _user IN ARRAY _without LOOP
        CALL pg_temp.run('users', ARRAY[format('SELECT memsync.create_default_persona(%L)',
                                               _user)]);
    END LOOP;
    IF cardinality(_without) > 0 THEN
        FOR _user IN
            WITH pairs AS MATERIALIZED (
                SELECT p.user_id, p.personality_id, p.rows_count, p.has_open, p.has_since,
                       o.persona_id AS override, d.persona_id AS fallback
                FROM (SELECT h.user_id, h.personality_id, count(*) AS rows_count,
                             bool_or(h.persona_id IS NULL AND k.history_id IS NULL) AS has_open,
                             bool_or(h.persona_id IS NULL AND k.history_id IS NULL AND h.created_at >= (SELECT max(coalesce(ended_at, started_at)) FROM memsync.runs
                             WHERE verb = 'rollback' AND phase = 'expand') AT TIME ZONE 'UTC')
                                 AS has_since
                      FROM conversation_history h
                      LEFT JOIN (SELECT a.history_id, a.persona_id
            FROM memsync.row_archive a JOIN personas p ON p.id = a.persona_id) k ON k.history_id = h.id
                      GROUP BY h.user_id, h.personality_id) p
                LEFT JOIN memsync.persona_override o USING (user_id, personality_id)
                LEFT JOIN memsync.persona_default d USING (user_id)
            ), decided AS (
                INSERT INTO memsync.persona_map
                       (user_id, personality_id, persona_id, reason, override_persona_id, default_persona_id,
                        rows_count)
                SELECT p.user_id, p.personality_id, coalesce(p.override, p.fallback),
                       CASE WHEN p.override IS NOT NULL THEN 'override'
                            WHEN c.user_id IS NOT NULL THEN 'created'
                            ELSE 'default' END,
                       p.override, p.fallback, p.rows_count
                FROM pairs p
                LEFT JOIN memsync.created_persona c
                       ON c.user_id = p.user_id AND c.persona_id = p.fallback
                WHERE coalesce(p.override, p.fallback) IS NOT NULL
                ON CONFLICT (user_id, personality_id) DO NOTHING
            )
            SELECT DISTINCT p.user_id
            FROM pairs p LEFT JOIN memsync.persona_map m USING (user_id, personality_id)
            WHERE coalesce(p.override, p.fallback) IS NULL AND (p.has_since OR p.has_open AND m.user_id IS NULL)
            ORDER BY p.user_id
        LOOP
            NULL;  -- the next pass decides users who came meanwhile
        END LOOP;
        COMMIT;
    END IF;
    INSERT INTO memsync.row_archive (history_id, user_id, persona_id, reason)
    SELECT h.id, h.user_id, coalesce(o.persona_id, d.persona_id), 'written-since'
    FROM conversation_history h
    JOIN memsync.persona_map m USING (user_id, personality_id)
    LEFT JOIN memsync.persona_override o USING (user_id, personality_id)
    LEFT JOIN memsync.persona_default d USING (user_id)
    WHERE h.persona_id IS NULL AND h.created_at >= (SELECT max(coalesce(ended_at, started_at)) FROM memsync.runs
                     WHERE verb = 'rollback' AND phase = 'expand') AT TIME ZONE 'UTC'
      AND coalesce(o.persona_id, d.persona_id) <> m.persona_id
    ON CONFLICT (history_id) DO NOTHING;
    ANALYZE memsync.persona_map, memsync.row_archive;
    COMMIT;
END $fn$;

CREATE OR REPLACE FUNCTION pg_temp.clear_range(_from bigint, _to bigint)
RETURNS void LANGUAGE plpgsql AS $fn$
DECLARE
    _start CONSTANT text := format('(%s,0)', _from);
    _stop CONSTANT text := format('(%s,0)', _to);
BEGIN
    UPDATE conversation_history h SET persona_id = NULL
    WHERE h.ctid >= _start::tid AND h.ctid < _stop::tid AND h.persona_id IS NOT NULL
      AND NOT EXISTS (SELECT FROM personas p WHERE p.id = h.persona_id);
END $fn$;

-- Forgets decisions whose persona was deleted since, and empties persona_id of their messages.
CREATE OR REPLACE PROCEDURE pg_temp.clear_vanished() LANGUAGE plpgsql AS $fn$
DECLARE
    _blocks CONSTANT int := 8192;
    _from bigint := 0;
    _end_block bigint := 0;
BEGIN
    WITH gone AS (DELETE FROM memsync.row_archive a
                  WHERE NOT EXISTS (SELECT FROM personas p WHERE p.id = a.persona_id))
    DELETE FROM memsync.persona_map m
    WHERE NOT EXISTS (SELECT FROM personas p WHERE p.id = m.persona_id);
    COMMIT;
    IF (SELECT count(*) AS total FROM conversation_history h
    WHERE h.persona_id IS NOT NULL
      AND NOT EXISTS (SELECT FROM personas p WHERE p.id = h.persona_id)) > 0 THEN
        _end_block := pg_temp.history_blocks();
    END IF;
    WHILE _from < _end_block LOOP
        CALL pg_temp.run('conversation_history', ARRAY[
            format('SELECT pg_temp.clear_range(%s, %s)', _from, _from + _blocks)]);
        _from := _from + _blocks;
    END LOOP;
    COMMIT;
END $fn$;

-- Fills a part of the rows of every page in a range of blocks; the last part moves the checkpoint.
CREATE OR REPLACE FUNCTION pg_temp.fill_range(_from bigint, _to bigint, _part int, _parts int)
RETURNS bigint LANGUAGE plpgsql AS $fn$
DECLARE
    _fill CONSTANT text := 'personas';
    _start CONSTANT text := format('(%s,0)', _from);
    _stop CONSTANT text := format('(%s,0)', _to);
    _next_block CONSTANT bigint := CASE WHEN _part = _parts - 1 THEN _to ELSE _from END;
    _began CONSTANT timestamptz := clock_timestamp();
    _archived bigint;
    _rows bigint;
    _busy_s float;
BEGIN
    PERFORM * FROM (SELECT set_config('enable_seqscan', 'off', true)) AS set_here;
    UPDATE conversation_history h
    SET persona_id = coalesce((SELECT k.persona_id FROM (SELECT a.history_id, a.persona_id
    FROM memsync.row_archive a JOIN personas p ON p.id = a.persona_id) k WHERE k.history_id = h.id), m.persona_id)
    FROM memsync.persona_map m
    WHERE h.ctid >= _start::tid AND h.ctid < _stop::tid
      AND get_byte(tidsend(h.ctid), 5) % _parts = _part
      AND h.persona_id IS NULL
      AND m.user_id = h.user_id AND m.personality_id = h.personality_id;
    GET DIAGNOSTICS _rows = ROW_COUNT;
    IF _part = _parts - 1 THEN
        UPDATE conversation_history h
        SET persona_id = (SELECT k.persona_id FROM (SELECT a.history_id, a.persona_id
        FROM memsync.row_archive a JOIN personas p ON p.id = a.persona_id) k WHERE k.history_id = h.id)
        WHERE h.ctid >= _start::tid AND h.ctid < _stop::tid
          AND h.persona_id IS NULL
          AND (SELECT k.persona_id FROM (SELECT a.history_id, a.persona_id
        FROM memsync.row_archive a JOIN personas p ON p.id = a.persona_id) k WHERE k.history_id = h.id) IS NOT NULL;
        GET DIAGNOSTICS _archived = ROW_COUNT;
        _rows := _rows + _archived;
    END IF;
    _busy_s := extract(epoch FROM clock_timestamp() - _began);
    UPDATE memsync.backfill
    SET next_block = greatest(next_block, _next_block), rows_done = rows_done + _rows,
        busy = busy + make_interval(secs => _busy_s), updated_at = clock_timestamp()
    WHERE fill = _fill;
    RETURN _rows;
END $fn$;

-- Fills from the checkpoint up to a block, in ranges whose parts take about batch_target_ms each.
-- The rows of a later part take the space that the part before freed in the same page: these are
-- HOT updates, which touch no index. https://www.postgresql.org/docs/current/storage-hot.html
CREATE OR REPLACE PROCEDURE pg_temp.fill_up_to(_end bigint) LANGUAGE plpgsql AS $fn$
DECLARE
    _target_s CONSTANT float := current_setting('memsync.batch_target_ms')::float / 1000;
    _parts CONSTANT int := 8;
    _block bigint;
    _stop bigint;
    _size bigint := 128;
    _began timestamptz;
    _took_s float;
    _rows text;
BEGIN
    SELECT next_block INTO _block FROM memsync.backfill WHERE fill = 'personas';
    WHILE _block < _end LOOP
        _stop := least(_block + _size, _end);
        _took_s := 0;
        FOR _part IN 0.._parts - 1 LOOP
            _began := clock_timestamp();
            CALL pg_temp.ask('conversation_history',
                             ARRAY[format('SELECT pg_temp.fill_range(%s, %s, %s, %s)',
                                          _block, _stop, _part, _parts)], _rows);
            PERFORM set_config('memsync.rows_filled',
                               (current_setting('memsync.rows_filled')::bigint
                                + _rows::bigint)::text, false);
            _took_s := greatest(_took_s, extract(epoch FROM clock_timestamp() - _began));
        END LOOP;
        _block := _stop;
        _size := greatest(1, least(8192, _size * least(2.0, _target_s / greatest(_took_s, 1e-4))));
    END LOOP;
    COMMIT;
END $fn$;

DO $do$
DECLARE
    _fill CONSTANT text := 'personas';
    _unresolved CONSTANT text := current_setting('memsync.unresolved');
    _end_block bigint;
    _rows_total bigint;
BEGIN
    PERFORM pg_temp.require(
        pg_temp.has_column('conversation_history', 'persona_id')
        AND (pg_temp.has_trigger('conversation_history', 'memsync_sync_identity')
             OR NOT pg_temp.has_users()), 'backfill');
    PERFORM pg_temp.begin_phase('backfill');
    COMMIT;
    CALL pg_temp.note_created(ARRAY['conversation_history_persona_id_idx', 'conversation_history_channel_id_personality_id_persona_id_c_idx',
                                    'conversation_history_persona_id_fkey']);
    IF pg_temp.has_users() THEN
        CALL pg_temp.freeze();
        _end_block := pg_temp.history_blocks();
        SELECT (SELECT coalesce(sum(rows_count), 0) FROM memsync.persona_map)::bigint
             + (SELECT count(*) FROM memsync.row_archive a
                JOIN conversation_history h ON h.id = a.history_id
                LEFT JOIN memsync.persona_map m
                       ON m.user_id = h.user_id AND m.personality_id = h.personality_id
                WHERE m.user_id IS NULL) AS total INTO _rows_total;
        INSERT INTO memsync.backfill
               (fill, next_block, end_block, rows_total, rows_done, unresolved, busy)
        VALUES (_fill, 0, _end_block, _rows_total, 0, _unresolved, interval '0')
        ON CONFLICT (fill) DO UPDATE SET
            unresolved = excluded.unresolved,
            next_block = CASE WHEN backfill.next_block < backfill.end_block
                              THEN backfill.next_block ELSE 0 END,
            rows_done = CASE WHEN backfill.next_block < backfill.end_block
                             THEN backfill.rows_done ELSE 0 END,
            busy = CASE WHEN backfill.next_block < backfill.end_block
                        THEN backfill.busy ELSE interval '0' END,
            end_block = greatest(backfill.end_block, excluded.end_block),
            rows_total = greatest(backfill.rows_total, excluded.rows_total);
    END IF;
END $do$;

-- One slice after another. VACUUM lets the next slice use the space of the rows that the last one
-- replaced. Otherwise the table and its indexes would grow.
SELECT format('CALL pg_temp.fill_up_to(%s)', least(end_block, next_block + n * slice)),
       $q$VACUUM (TRUNCATE false, SKIP_LOCKED) conversation_history$q$
FROM (SELECT next_block, end_block, greatest(1, (end_block + 9) / 10) AS slice
      FROM memsync.backfill WHERE fill = 'personas' AND next_block < end_block) b
CROSS JOIN generate_series(1, 10) AS n
WHERE pg_temp.has_users() AND next_block + (n - 1) * slice < end_block
  AND (SELECT EXISTS (SELECT FROM conversation_history WHERE persona_id IS NULL) AS found)
ORDER BY n
\gexec

-- The rows that are left lost their persona to a deletion, or were not decided yet.
DO $do$
DECLARE
    _fill CONSTANT text := 'personas';
    _passes_max CONSTANT int := 5;
    _end_block bigint;
    _left bigint;
BEGIN
    IF NOT pg_temp.has_users() THEN
        RETURN;
    END IF;
    FOR _pass IN 1.._passes_max LOOP
        SELECT end_block INTO _end_block FROM memsync.backfill WHERE fill = _fill;
        CALL pg_temp.fill_up_to(_end_block);
        CALL pg_temp.clear_vanished();
        EXIT WHEN NOT (SELECT EXISTS (SELECT FROM conversation_history WHERE persona_id IS NULL) AS found);
        CALL pg_temp.freeze();
        _end_block := pg_temp.history_blocks();
        UPDATE memsync.backfill SET next_block = 0, end_block = _end_block WHERE fill = _fill;
        COMMIT;
    END LOOP;
    SELECT count(*) INTO _left FROM conversation_history WHERE persona_id IS NULL;
    IF _left > 0 THEN
        RAISE EXCEPTION '% messages still have no persona after % passes', _left, _passes_max
            USING HINT = 'Run this again.';
    END IF;
    ANALYZE conversation_history (persona_id);
END $do$;

-- After the fill, because each filled row would have to update them.
SELECT pg_temp.index_work('conversation_history', i, s) FROM (VALUES
    ('conversation_history_persona_id_idx', $q$CREATE INDEX CONCURRENTLY conversation_history_persona_id_idx
    ON conversation_history (persona_id)$q$),
    ('conversation_history_channel_id_personality_id_persona_id_c_idx', $q$CREATE INDEX CONCURRENTLY conversation_history_channel_id_personality_id_persona_id_c_idx
    ON conversation_history (channel_id, personality_id, persona_id, created_at DESC, id DESC)$q$)) AS v(i, s)
\gexec

DO $do$
BEGIN
    IF NOT coalesce(pg_temp.is_valid('conversation_history', 'conversation_history_persona_id_fkey'), false) THEN
        CALL pg_temp.foreign_key('conversation_history', 'persona_id', 'personas');
        -- The key now refuses unknown personas. Older ones must go before its validation.
        CALL pg_temp.clear_vanished();
        CALL pg_temp.validate('conversation_history', 'conversation_history_persona_id_fkey');
    END IF;
    IF NOT pg_temp.is_backfilled() THEN
        RAISE EXCEPTION 'backfill ended, but a message has no persona, or an object is missing'
            USING HINT = 'Run this again.';
    END IF;
    PERFORM pg_temp.end_phase();
END $do$;
\endif


-- ==== contract ====
SELECT :'run_contract'::boolean AND NOT pg_temp.finished() AS ahead \gset
\if :ahead
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
        UPDATE memsync.runs SET gates_passed = true, note = _note
        WHERE id = (SELECT max(id) FROM memsync.runs WHERE verb = 'run' AND phase = 'contract');
    END IF;
END $do$;

CREATE OR REPLACE FUNCTION pg_temp.sync_trigger_dropped(_name text, _table text)
RETURNS text LANGUAGE sql AS
$fn$ SELECT replace(replace($q$DROP TRIGGER IF EXISTS {trigger} ON {table}$q$, '{trigger}', quote_ident(_name)),
                    '{table}', quote_ident(_table)) $fn$;

-- Drops old columns of the settings in one transaction, with the triggers that kept them in sync,
-- and archives the values that only these columns hold.
CREATE OR REPLACE PROCEDURE pg_temp.drop_old(_table text, _columns text[], _keep text[])
LANGUAGE plpgsql AS $fn$
DECLARE
    _work text[] := ARRAY[replace($q$LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE$q$, '{table}', quote_ident(_table))];
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
        SELECT replace(replace($q$ALTER TABLE {table} DROP COLUMN {column}$q$, '{table}', quote_ident(_table)),
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
    CALL pg_temp.require_not_null('personas', 'owner_id', 'memsync_owner_id_present');
    -- Copied once more: what a sync trigger left to another client whose transaction then failed.
    IF pg_temp.has_column('users', 'global_persona_id') THEN
        CALL pg_temp.run('users', ARRAY[$q$UPDATE users SET global_persona_id = global_persona_id
WHERE id IN (SELECT u.id
             FROM users u LEFT JOIN user_default_personas d ON d.user_id = u.id
             WHERE u.global_persona_id IS DISTINCT FROM d.persona_id)$q$]);
    END IF;
    IF pg_temp.has_column('personalities', 'llm_config_id') THEN
        CALL pg_temp.run('personalities', ARRAY[$q$UPDATE personalities SET llm_config_id = llm_config_id
WHERE id IN (SELECT p.id FROM personalities p
             LEFT JOIN personality_default_configs d ON d.personality_id = p.id
             WHERE p.llm_config_id IS DISTINCT FROM d.llm_config_id)$q$]);
        IF pg_temp.has_column('personalities', 'context_window_size') THEN
            CALL pg_temp.run('personalities', ARRAY[$q$UPDATE personalities p SET context_window_size = p.context_window_size
FROM llm_configs c
WHERE c.id = p.llm_config_id AND c.context_window_size <> p.context_window_size$q$]);
        END IF;
    END IF;
    CALL pg_temp.drop_old('users', ARRAY['global_persona_id'], ARRAY[NULL]);
    CALL pg_temp.drop_old('personalities', ARRAY['llm_config_id', 'context_window_size'],
        ARRAY[NULL, $q$INSERT INTO memsync.column_archive (column_name, row_id, value)
SELECT 'personalities.context_window_size', id, to_jsonb(context_window_size) FROM personalities
WHERE llm_config_id IS NULL
ON CONFLICT (column_name, row_id) DO UPDATE SET value = excluded.value$q$]);
    CALL pg_temp.drop_old('personas', ARRAY['is_global'],
        ARRAY[$q$INSERT INTO memsync.column_archive (column_name, row_id, value)
SELECT 'personas.is_global', id, to_jsonb(is_global) FROM personas WHERE is_global
ON CONFLICT (column_name, row_id) DO UPDATE SET value = excluded.value$q$]);
    CALL pg_temp.drop_old('llm_configs', ARRAY['is_default'],
        ARRAY[$q$INSERT INTO memsync.column_archive (column_name, row_id, value)
SELECT 'llm_configs.is_default', id, to_jsonb(is_default) FROM llm_configs WHERE is_default
ON CONFLICT (column_name, row_id) DO UPDATE SET value = excluded.value$q$]);
    IF pg_temp.is_view('user_personality_settings') THEN
        CALL pg_temp.run('user_personality_configs', ARRAY[
            'DROP VIEW user_personality_settings',
            pg_temp.noted('user_personality_settings', 'dropped')]);
    END IF;
    _drops := ARRAY(
        SELECT pg_temp.sync_trigger_dropped(name, on_table)
        FROM (VALUES ('users', 'memsync_sync_default'),
           ('user_default_personas', 'memsync_sync_default'),
           ('personas', 'memsync_sync_default'),
           ('personality_default_configs', 'memsync_sync_config'),
           ('llm_configs', 'memsync_sync_config'),
           ('llm_configs', 'memsync_sync_window'),
           ('llm_configs', 'memsync_sync_is_default'),
           ('personalities', 'memsync_sync_config')) AS v(on_table, name))
        || $q$DROP FUNCTION IF EXISTS memsync.is_waited_for(), memsync.config_with_window(uuid, int, uuid),
    memsync.sync_default(uuid, uuid, timestamp), memsync.sync_config(uuid, uuid, int, timestamp),
    memsync.sync_default_chosen(uuid, uuid, timestamp, uuid, uuid),
    memsync.sync_config_chosen(uuid, uuid, timestamp, uuid, uuid), memsync.sync_place(),
    memsync.sync_lock_new_place(), memsync.sync_window_of_config(),
    memsync.sync_default_is_global()$q$::text;
    CALL pg_temp.run('users', _drops);
END $do$;

-- Archives the users that only user_id knows. The user of other rows is the owner of the persona.
DO $do$
DECLARE
    _index text := 'SELECT 1';  -- there is no such index to note
BEGIN
    IF NOT pg_temp.is_not_null('conversation_history', 'persona_id') THEN
        EXECUTE pg_temp.noted_of_history('persona_id NOT NULL', 'created');
        COMMIT;
    END IF;
    CALL pg_temp.require_not_null('conversation_history', 'persona_id', 'memsync_persona_id_present');
    IF pg_temp.has_column('conversation_history', 'user_id') THEN
        EXECUTE $q$INSERT INTO memsync.row_archive (history_id, user_id, persona_id, reason)
SELECT h.id, h.user_id, h.persona_id, 'owner-differs'
FROM conversation_history h JOIN personas p ON p.id = h.persona_id
WHERE h.user_id IS NOT NULL AND p.owner_id IS DISTINCT FROM h.user_id
ON CONFLICT (history_id) DO UPDATE SET user_id = excluded.user_id$q$;
        COMMIT;
        IF pg_temp.is_valid('conversation_history', 'conversation_history_user_id_fkey') IS NOT NULL THEN
            -- In its own transaction, because this one also locks users.
            CALL pg_temp.run('users', ARRAY[
                'ALTER TABLE conversation_history DROP CONSTRAINT conversation_history_user_id_fkey',
                pg_temp.noted_of_history('conversation_history_user_id_fkey', 'dropped')]);
        END IF;
        IF to_regclass('conversation_history_user_id_idx') IS NOT NULL THEN
            _index := pg_temp.noted_of_history('conversation_history_user_id_idx', 'dropped');
        END IF;
        CALL pg_temp.run('conversation_history', ARRAY[
            'DROP TRIGGER IF EXISTS memsync_sync_identity ON conversation_history',
            'DROP TRIGGER IF EXISTS memsync_record_user_write ON conversation_history',
            'ALTER TABLE conversation_history DROP COLUMN user_id',
            $q$UPDATE memsync.runs SET user_id_dropped = true
WHERE id = (SELECT max(id) FROM memsync.runs WHERE verb = 'run' AND phase = 'contract')$q$,
            pg_temp.unnoted_of_history('conversation_history_channel_id_personality_id_user_id_crea_idx'),
            _index,
            'DROP FUNCTION IF EXISTS memsync.record_user_write()',
            'DROP FUNCTION IF EXISTS memsync.sync_identity()',
            'DROP FUNCTION IF EXISTS memsync.create_default_persona(uuid)',
            'DROP VIEW IF EXISTS memsync.persona_override, memsync.persona_default']);
    END IF;
    IF NOT pg_temp.finished() THEN
        RAISE EXCEPTION 'contract ended, but it is not complete' USING HINT = 'Run this again.';
    END IF;
    PERFORM pg_temp.end_phase();
END $do$;
\endif


-- ==== verify ====
\if :only_verify
\echo 'verify: checks that every message has a persona, the right one if that can be recomputed'
DO $do$
BEGIN
    IF NOT pg_temp.has_column('conversation_history', 'persona_id') THEN
        RAISE EXCEPTION 'conversation_history has no persona_id yet'
            USING HINT = 'Run the steps before this one.';
    END IF;
    PERFORM pg_temp.prove();
    IF pg_temp.is_valid('conversation_history', 'conversation_history_persona_id_fkey') IS NOT TRUE THEN
        RAISE EXCEPTION 'the foreign key conversation_history_persona_id_fkey is missing or not validated'
            USING HINT = 'Run the backfill again.';
    END IF;
    IF pg_temp.has_column('conversation_history', 'user_id') AND NOT pg_temp.has_users() THEN
        RAISE EXCEPTION 'user_id exists, but not every message has one: a rollback was cut short'
            USING HINT = 'Finish it with memsync migrate rollback, or go forward again.';
    END IF;
END $do$;
\endif


-- ==== back ====
\if :only_back
\echo 'back: drops persona_id with its indexes, key and trigger; the tables of the redesign stay'
DO $do$
BEGIN
    IF to_regclass('memsync.runs') IS NULL THEN
        RAISE EXCEPTION 'there is nothing to take back: no migration was begun here';
    END IF;
    IF NOT pg_temp.has_users() OR pg_temp.is_created('persona_id NOT NULL')
       OR pg_temp.is_valid('conversation_history', 'memsync_persona_id_present') IS NOT NULL
       OR EXISTS (SELECT FROM memsync.history_change
                  WHERE object = 'conversation_history_user_id_fkey' AND change = 'dropped')
       OR EXISTS (SELECT FROM memsync.redesign_change
                  WHERE change = 'dropped' OR object = 'personas.owner_id') THEN
        RAISE EXCEPTION 'contract was begun: this script takes back only the phases before it'
            USING HINT = 'memsync migrate rollback takes contract back, also in part.';
    END IF;
    PERFORM pg_temp.begin_phase('backfill', 'rollback');
    IF pg_temp.is_created('conversation_history_persona_id_fkey') THEN
        CALL pg_temp.run('conversation_history', ARRAY[
            'ALTER TABLE conversation_history DROP CONSTRAINT IF EXISTS conversation_history_persona_id_fkey',
            pg_temp.unnoted_of_history('conversation_history_persona_id_fkey')]);
    END IF;
    CALL pg_temp.note_created(ARRAY['conversation_history_channel_id_personality_id_user_id_crea_idx']);
END $do$;

-- Clients read threads by user again.
SELECT pg_temp.index_work('conversation_history', 'conversation_history_channel_id_personality_id_user_id_crea_idx',
    $q$CREATE INDEX CONCURRENTLY conversation_history_channel_id_personality_id_user_id_crea_idx
    ON conversation_history (channel_id, personality_id, user_id, created_at DESC, id DESC)$q$)
\gexec

-- The app's own indexes and key stay, and so does a column that the app made itself.
SELECT dropped, pg_temp.unnoted_of_history(name) FROM (VALUES
    ('conversation_history_channel_id_personality_id_persona_id_c_idx', 'DROP INDEX CONCURRENTLY IF EXISTS conversation_history_channel_id_personality_id_persona_id_c_idx'),
    ('conversation_history_persona_id_idx', 'DROP INDEX CONCURRENTLY IF EXISTS conversation_history_persona_id_idx')) AS v(name, dropped)
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
        EXECUTE $q$INSERT INTO memsync.row_archive (history_id, user_id, persona_id, reason)
SELECT h.id, h.user_id, h.persona_id, 'kept'
FROM conversation_history h
LEFT JOIN memsync.persona_map m USING (user_id, personality_id)
LEFT JOIN memsync.row_archive a ON a.history_id = h.id
WHERE h.persona_id IS NOT NULL
  AND h.persona_id IS DISTINCT FROM coalesce(a.persona_id, m.persona_id)
ON CONFLICT (history_id) DO UPDATE
SET persona_id = excluded.persona_id, reason = excluded.reason, source = NULL$q$;
        COMMIT;
        DELETE FROM memsync.backfill WHERE fill = _fill;
        COMMIT;
    END IF;
    IF pg_temp.is_created('persona_id') THEN
        _column := ARRAY['ALTER TABLE conversation_history DROP COLUMN IF EXISTS persona_id',
                         pg_temp.unnoted_of_history('persona_id')];
    END IF;
    CALL pg_temp.run('conversation_history', ARRAY[
        'DROP TRIGGER IF EXISTS memsync_sync_identity ON conversation_history',
        'DROP TRIGGER IF EXISTS memsync_record_user_write ON conversation_history'] || _column || ARRAY[
        'DROP FUNCTION IF EXISTS memsync.record_user_write()',
        'DROP FUNCTION IF EXISTS memsync.sync_identity()',
        'DROP FUNCTION IF EXISTS memsync.create_default_persona(uuid)',
        'DROP VIEW IF EXISTS memsync.persona_override, memsync.persona_default']);
    IF pg_temp.has_column('conversation_history', 'persona_id') THEN
        CALL pg_temp.run('conversation_history', ARRAY[$q$UPDATE conversation_history h SET persona_id = p.id
FROM memsync.column_archive a JOIN personas p ON p.id = (a.value #>> '{}')::uuid
WHERE a.column_name = 'conversation_history.persona_id' AND a.row_id = h.id
  AND h.persona_id IS DISTINCT FROM p.id$q$]);
    END IF;
    DELETE FROM memsync.column_archive WHERE column_name = 'conversation_history.persona_id';
    PERFORM pg_temp.end_phase();
    COMMIT;
    -- SQL cannot know whether there are memories of them.
    SELECT count(*) AS total, string_agg(format('%s %s of user %s', c.persona_id, c.name, c.user_id), ', ')
           AS named
    INTO _made FROM (SELECT c.user_id, c.persona_id,
           p.content <> '' OR p.description IS DISTINCT FROM 'Default persona'
           OR p.name NOT LIKE '%''s Persona' AS edited,
           EXISTS (SELECT FROM memsync.outbox o JOIN conversation_history h ON h.id = o.point_id
                   WHERE h.user_id = c.user_id) AS awaited
    FROM memsync.created_persona c JOIN personas p ON p.id = c.persona_id
    ORDER BY c.user_id) c;
    IF _made.total > 0 THEN
        RAISE NOTICE '% default personas that memsync made stay: %; memsync migrate rollback removes '
            'those that nothing uses', _made.total, left(_made.named, 1000);
    END IF;
END $do$;
\endif


-- ==== summary ====
CREATE OR REPLACE FUNCTION pg_temp.summary() RETURNS TABLE (item text, value text)
LANGUAGE plpgsql AS $fn$
DECLARE
    _counts record;
    _wrong bigint;
BEGIN
    RETURN QUERY SELECT 'migration', CASE
        WHEN pg_temp.finished() THEN 'finished'
        WHEN pg_temp.has_column('conversation_history', 'user_id')
            THEN 'not finished: user_id is still there'
        ELSE 'not finished' END;
    IF pg_temp.has_column('conversation_history', 'persona_id') THEN
        SELECT count(*) AS rows_total,
               count(DISTINCT h.persona_id) AS unique_personas,
               count(*) FILTER (WHERE h.persona_id IS NULL) AS null_persona_ids,
               count(*) FILTER (WHERE h.persona_id IS NOT NULL AND p.id IS NULL) AS unknown_persona_ids
        FROM conversation_history h LEFT JOIN personas p ON p.id = h.persona_id INTO _counts;
        SELECT _total INTO _wrong FROM pg_temp.wrong_rows();
        RETURN QUERY VALUES
            ('messages', _counts.rows_total::text),
            ('personas used', _counts.unique_personas::text),
            ('persona_id NULL', _counts.null_persona_ids::text),
            ('persona_id unknown', _counts.unknown_persona_ids::text),
            ('persona_id wrong', coalesce(_wrong::text,
                'none when user_id was dropped; nothing is left to recompute it from'));
    END IF;
    IF to_regclass('memsync.persona_map') IS NOT NULL THEN
        RETURN QUERY SELECT 'messages decided by ' || m.reason, sum(m.rows_count)::text
                     FROM memsync.persona_map m GROUP BY m.reason ORDER BY m.reason;
    END IF;
    RETURN QUERY SELECT 'seconds', round(extract(epoch FROM clock_timestamp()
        - current_setting('memsync.began')::timestamptz), 1)::text;
END $fn$;

SELECT item, value FROM pg_temp.summary();
