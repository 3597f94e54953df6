-- Step 3, expand. One phase of migrate-persona-all-in-one.sql, which says what may be chosen.
-- The steps run in the order of their numbers; each may be run again.
--
--     psql "$URL" -f sql/steps/3-expand.sql \
--         -v unresolved=create -v backup_confirmed='which one'
--
-- Made by `make sql` from sql/parts; do not edit it here.

-- What stops this script stops it for good: psql ends with status 3, also when it reads stdin.
\set ON_ERROR_STOP on
\set ON_ERROR_ROLLBACK off
\set AUTOCOMMIT on
\set QUIET on
\set VERBOSITY default
\set SHOW_CONTEXT never
\pset pager off
\pset footer off

-- Choices; the command line's -v comes first.
\if :{?unresolved}
\else
\set unresolved fail
\endif
\if :{?backup_confirmed}
\else
\set backup_confirmed ''
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

-- What a role or database limits its clients to does not hold here: long steps are long on purpose.
SELECT set_config(name, '0', false) FROM pg_settings
WHERE name IN ('statement_timeout', 'lock_timeout', 'transaction_timeout',
               'idle_in_transaction_session_timeout', 'idle_session_timeout')
\g /dev/null
SELECT set_config('maintenance_work_mem',
                  greatest(pg_size_bytes(current_setting('maintenance_work_mem')) / 1024,
                           262144)::text || 'kB', false) AS sorts,
       (SELECT set_config(name, '256kB', false) FROM pg_settings
        WHERE name = 'backend_flush_after' AND setting = '0' AND max_val::int > 0) AS writes
\g /dev/null
SELECT set_config(name, setting, false) FROM (VALUES
    ('row_security', 'off'),  -- rows that a policy hides are an error, not passed over
    ('default_transaction_isolation', 'read committed'),
    ('client_min_messages', 'notice'), ('standard_conforming_strings', 'on'),
    ('plan_cache_mode', 'force_custom_plan'),  -- a batch's range of blocks is never the last one's
    ('memsync.unresolved', :'unresolved'), ('memsync.backup_confirmed', :'backup_confirmed'),
    ('memsync.lock_timeout_ms', :'lock_timeout_ms'),
    ('memsync.lock_deadline_s', :'lock_deadline_s'),
    ('memsync.batch_target_ms', :'batch_target_ms'),
    ('memsync.began', clock_timestamp()::text), ('memsync.lock_waits', '0'),
    ('memsync.rows_filled', '0'), ('memsync.entry', '')) AS given(name, setting)
\g /dev/null

DO $do$
BEGIN
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
    -- Fails where the whole script was put into one transaction: it must commit step by step.
    COMMIT;
END $do$;

-- One migration at a time, whether by script or by memsync. The lock ends with this session.
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


-- ---- What stands. All of these helpers are temporary and go with this session.

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

-- A build that was cut short leaves an INVALID index: that is none.
CREATE OR REPLACE FUNCTION pg_temp.has_index(_table text, _name text)
RETURNS boolean LANGUAGE sql AS
$fn$ SELECT pg_temp.stands(_table, 'index', _name) $fn$;

-- NULL where there is no such constraint, else whether it holds for every row.
CREATE OR REPLACE FUNCTION pg_temp.is_valid(_table text, _name text)
RETURNS boolean LANGUAGE sql AS $fn$
    SELECT k.valid FROM (SELECT conname AS name, convalidated AS valid
FROM pg_constraint WHERE conrelid = to_regclass(_table)) k WHERE k.name = _name
$fn$;

-- Whether messages say their user: the column is there, and no way back that has yet to fill it.
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

-- The triggers that keep the old places of the settings and the new ones in step.
CREATE OR REPLACE FUNCTION pg_temp.mirrors()
RETURNS TABLE (old_table text, old_column text, on_table text, name text, stated text)
LANGUAGE sql AS $fn$
    VALUES ('users', 'global_persona_id', 'users', 'memsync_sync_default', $q$CREATE TRIGGER "memsync_sync_default" AFTER INSERT OR UPDATE OF global_persona_id ON users FOR EACH ROW WHEN (current_setting('memsync.copying_settings', true) IS DISTINCT FROM 'on') EXECUTE FUNCTION memsync.sync_place('50ms')$q$),
           ('users', 'global_persona_id', 'user_default_personas', 'memsync_sync_default', $q$CREATE TRIGGER "memsync_sync_default" AFTER INSERT OR UPDATE OR DELETE ON user_default_personas FOR EACH ROW WHEN (current_setting('memsync.copying_settings', true) IS DISTINCT FROM 'on') EXECUTE FUNCTION memsync.sync_place('300ms')$q$),
           ('users', 'global_persona_id', 'personas', 'memsync_sync_default', $q$CREATE TRIGGER "memsync_sync_default" BEFORE DELETE ON personas FOR EACH ROW WHEN (current_setting('memsync.copying_settings', true) IS DISTINCT FROM 'on') EXECUTE FUNCTION memsync.sync_lock_new_place()$q$),
           ('personalities', 'llm_config_id', 'personalities', 'memsync_sync_config', $q$CREATE TRIGGER "memsync_sync_config" AFTER INSERT OR UPDATE OF llm_config_id ON personalities FOR EACH ROW WHEN (current_setting('memsync.copying_settings', true) IS DISTINCT FROM 'on') EXECUTE FUNCTION memsync.sync_place('50ms')$q$),
           ('personalities', 'llm_config_id', 'personality_default_configs', 'memsync_sync_config', $q$CREATE TRIGGER "memsync_sync_config" AFTER INSERT OR UPDATE OR DELETE ON personality_default_configs FOR EACH ROW WHEN (current_setting('memsync.copying_settings', true) IS DISTINCT FROM 'on') EXECUTE FUNCTION memsync.sync_place('300ms')$q$),
           ('personalities', 'llm_config_id', 'llm_configs', 'memsync_sync_config', $q$CREATE TRIGGER "memsync_sync_config" BEFORE DELETE ON llm_configs FOR EACH ROW WHEN (current_setting('memsync.copying_settings', true) IS DISTINCT FROM 'on') EXECUTE FUNCTION memsync.sync_lock_new_place()$q$),
           ('personalities', 'context_window_size', 'llm_configs', 'memsync_sync_window', $q$CREATE TRIGGER "memsync_sync_window" AFTER UPDATE OF context_window_size ON llm_configs FOR EACH ROW WHEN (current_setting('memsync.copying_settings', true) IS DISTINCT FROM 'on') EXECUTE FUNCTION memsync.sync_window_of_config()$q$),
           ('llm_configs', 'is_default', 'llm_configs', 'memsync_sync_is_default', $q$CREATE TRIGGER "memsync_sync_is_default" BEFORE INSERT OR UPDATE OF is_default ON llm_configs FOR EACH ROW WHEN (current_setting('memsync.copying_settings', true) IS DISTINCT FROM 'on') EXECUTE FUNCTION memsync.sync_default_is_global()$q$)
$fn$;

-- Those of them that are wanted, because the old column still stands.
CREATE OR REPLACE FUNCTION pg_temp.wanted_mirrors()
RETURNS TABLE (on_table text, name text, stated text) LANGUAGE sql AS $fn$
    SELECT on_table, name, min(stated) FROM pg_temp.mirrors()
    WHERE pg_temp.has_column(old_table, old_column)
    GROUP BY on_table, name ORDER BY on_table, name
$fn$;

CREATE OR REPLACE FUNCTION pg_temp.redesign_stands() RETURNS boolean LANGUAGE sql AS $fn$
    SELECT pg_temp.is_table('user_default_personas')
       AND pg_temp.is_table('personality_default_configs')
       AND pg_temp.is_table('user_personality_configs')
       AND NOT pg_temp.is_table('user_personality_settings')
       AND (SELECT bool_and(pg_temp.has_column('llm_configs', c))
            FROM unnest(ARRAY['owner_id', 'is_global', 'context_window_size']) AS c)
       AND (SELECT bool_and(pg_temp.has_index(t, i))
            FROM (VALUES ('user_default_personas', 'user_default_personas_persona_id_idx'),
           ('personality_default_configs', 'personality_default_configs_llm_config_id_idx'),
           ('llm_configs', 'llm_configs_owner_id_idx'),
           ('llm_configs', 'llm_configs_is_global_idx')) AS v(t, i))
       AND pg_temp.is_valid('llm_configs', 'llm_configs_owner_id_fkey') IS NOT NULL
       AND NOT EXISTS (SELECT FROM pg_temp.wanted_mirrors() w
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

-- What serves reading by persona.
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

-- The query that says which persona users chose for a personality ('override'), have by default
-- ('default'), or which pairs are to be decided ('open'), in the schema as it is now.
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
            THEN $q$SELECT id, channel_id, personality_id, user_id, role, content, created_at
FROM conversation_history$q$
        WHEN _hole = 'open' AND to_regclass('memsync.persona_map') IS NOT NULL
            THEN $q$SELECT id, channel_id, personality_id, user_id, role, content, created_at
FROM conversation_history h
WHERE persona_id IS NULL
  AND NOT EXISTS (SELECT FROM memsync.persona_map m
                  WHERE m.user_id = h.user_id AND m.personality_id = h.personality_id
                    AND (h.created_at >= (SELECT max(coalesce(ended_at, started_at)) FROM memsync.runs
                 WHERE verb = 'rollback' AND phase = 'expand') AT TIME ZONE 'UTC') IS NOT TRUE)
  AND NOT EXISTS (SELECT FROM memsync.row_archive a JOIN personas p ON p.id = a.persona_id
                  WHERE a.history_id = h.id)$q$
        WHEN _hole = 'open' THEN $q$SELECT id, channel_id, personality_id, user_id, role, content, created_at
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
        RAISE EXCEPTION 'the database says nowhere which persona a user chose or has by default'
            USING HINT = 'Is this the app''s database, and its schema on the search_path?';
    END IF;
    RETURN _said;
END $fn$;

-- A statement with its holes {override}, {default}, {open} and {set_default} filled.
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
WHERE coalesce(d.persona_id, u.global_persona_id) IS NOT NULL$q$ THEN $q$UPDATE users SET global_persona_id = created WHERE id = for_user; INSERT INTO user_default_personas (user_id, persona_id, updated_at) VALUES (for_user, created, timezone('UTC', clock_timestamp())) ON CONFLICT (user_id) DO UPDATE SET persona_id = excluded.persona_id$q$
            ELSE $q$INSERT INTO user_default_personas (user_id, persona_id, updated_at) VALUES (for_user, created, timezone('UTC', clock_timestamp())) ON CONFLICT (user_id) DO UPDATE SET persona_id = excluded.persona_id$q$ END)
$fn$;

-- Where the functions that stay for a while find the app's tables, whoever calls them.
CREATE OR REPLACE FUNCTION pg_temp.pinned(_statement text) RETURNS text LANGUAGE sql AS $fn$
    SELECT replace(_statement, '{search_path}', string_agg(quote_ident(s), ', ') || ', pg_temp')
    FROM unnest(current_schemas(false)) AS s
$fn$;

CREATE OR REPLACE FUNCTION pg_temp.granted(_may text, _of text, _to name, _grantable boolean)
RETURNS text LANGUAGE sql AS
$fn$ SELECT format('GRANT %s ON %I TO %s', _may, _of, coalesce(quote_ident(_to), 'PUBLIC'))
         || CASE WHEN _grantable THEN ' WITH GRANT OPTION' ELSE '' END $fn$;

-- The statements that give a relation which is just made the owner and the grants of another.
-- `_replaced` is the column whose place it takes; without one it has the other's columns.
CREATE OR REPLACE FUNCTION pg_temp.rights_like(_of text, _relation text, _replaced text)
RETURNS text[] LANGUAGE sql AS $fn$
    WITH rights AS (SELECT pg_get_userbyid(c.relowner) AS owner,
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
        FROM rights WHERE privilege IS NOT NULL
        UNION ALL
        SELECT 2, row_number() OVER ()::int, grantee, privilege,
               pg_temp.granted(format('%s (%I)', privilege, s.column), _of, grantee, is_grantable)
        FROM single s WHERE _replaced IS NULL
        UNION ALL
        SELECT DISTINCT 3, 0, NULL::name, NULL,
               format('ALTER TABLE %I OWNER TO %I', _of, owner)
        FROM rights WHERE owner <> current_user) g
$fn$;

CREATE OR REPLACE FUNCTION pg_temp.noted(_object text, _change text) RETURNS text LANGUAGE sql AS
$fn$ SELECT format('INSERT INTO memsync.redesign_change (object, change) VALUES (%L, %L)'
                   ' ON CONFLICT DO NOTHING', _object, _change) $fn$;

-- Whether memsync noted that it made or dropped this piece of the redesign.
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


-- ---- How work is done while clients go on.

CREATE OR REPLACE FUNCTION pg_temp.blockers_of(_relation text) RETURNS text LANGUAGE sql AS $fn$
    SELECT coalesce(string_agg(format('%s (%s, %s s): %s',
                                      coalesce('pid ' || pid, 'prepared transaction'), state,
                                      round(open_s::numeric), query), '; '), 'nobody now')
    FROM (WITH seen AS (
        SELECT pid, virtualtransaction, bool_or(granted) AS holds FROM pg_locks
        WHERE relation = to_regclass(_relation) AND pid IS DISTINCT FROM pg_backend_pid()
          AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
        GROUP BY 1, 2),
    who AS (
        SELECT s.holds, a.pid, coalesce(a.state, 'of another role') AS state,
               left(a.query, 200) AS query, a.xact_start AS since
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

-- Waits a little, longer each time, before the next try for a lock; gives up after the deadline.
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
-- tries again. `_table` is the one whose lock is hardest to get. `_answer` is what the last
-- statement says, if that is a SELECT.
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
            _had := false;  -- and the locks that it had are free again
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

-- Adds a foreign key by the app's naming, and proves it while readers and writers pass.
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

-- Makes a column NOT NULL, proven by a check that is validated while clients go on: SET NOT NULL
-- alone would scan the table under the strongest lock.
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

-- The statements that build an index unless a valid one stands, for \gexec: no block or
-- transaction can build one while writers pass.
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

-- Stops a step that comes too early.
CREATE OR REPLACE FUNCTION pg_temp.require(_holds boolean, _phase text)
RETURNS void LANGUAGE plpgsql AS $fn$
BEGIN
    IF NOT _holds THEN
        RAISE EXCEPTION 'it is too early for %: what comes before it is not done', _phase
            USING HINT = 'Run the steps before this one, in the order of their numbers.';
    END IF;
END $fn$;

-- Keeps in the record of runs that a phase began, and that it came to its end.
CREATE OR REPLACE FUNCTION pg_temp.begin_phase(_phase text, _verb text DEFAULT 'run')
RETURNS void LANGUAGE plpgsql AS $fn$
DECLARE
    _version CONSTANT text := '0.1.0 (psql)';
    _entry bigint;
BEGIN
    PERFORM pg_temp.require(to_regclass('memsync.runs') IS NOT NULL, _phase);
    INSERT INTO memsync.runs (verb, phase, memsync_version)
    VALUES (_verb, _phase, _version) RETURNING id INTO _entry;
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


-- ---- Who owns a persona, and who has none.

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

-- Stops when something is the operator's to decide.
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
        FROM (WITH lacking AS MATERIALIZED (
            SELECT u.id, u.username FROM users u
            WHERE NOT EXISTS (SELECT FROM ({default}) d
                              WHERE d.user_id = u.id AND d.persona_id IS NOT NULL)
        )
        SELECT u.id AS user_id, u.username, count(*) AS rows_count
        FROM lacking u
        JOIN (SELECT o.user_id, o.personality_id FROM ({open}) o
        WHERE NOT EXISTS (SELECT FROM (SELECT NULL::uuid AS history_id WHERE false) t WHERE t.history_id = o.id)) l ON l.user_id = u.id
        LEFT JOIN ({override}) o ON o.user_id = l.user_id AND o.personality_id = l.personality_id
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

-- Gives every persona without an owner the one user who uses it.
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

-- Rows whose persona is not what the settings say; NULL where user_id or the bridge is not there to
-- recompute it from. `_named` are the first of them.
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
          -- Evidence speaks for a user's own personas only.
          WHEN a.reason = 'evidence'
               THEN h.persona_id <> a.persona_id OR p.owner_id IS DISTINCT FROM h.user_id
          WHEN a.history_id IS NOT NULL
               THEN h.persona_id <> a.persona_id OR h.user_id <> a.user_id
          -- Not of the map, or of after it: what the trigger decided is in the archive, so an app that
          -- knows both ids wrote this. Its persona must be one of the user's.
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
            USING HINT = 'Somebody filled them by another rule. Set their persona_id to NULL and '
                         'run the backfill again, or give them the right one. user_id is still there.';
    END IF;
END $fn$;


CREATE OR REPLACE FUNCTION pg_temp.require_fit() RETURNS void LANGUAGE plpgsql AS $fn$
DECLARE
    _old boolean := pg_temp.has_column('personalities', 'llm_config_id');
    _new boolean := pg_temp.is_table('personality_default_configs');
    _found text;
BEGIN
    IF EXISTS (SELECT FROM pg_class WHERE oid = to_regclass('conversation_history')
               AND (relkind <> 'r' OR relispartition))
       OR EXISTS (SELECT FROM pg_inherits
                  WHERE to_regclass('conversation_history') IN (inhparent, inhrelid)) THEN
        RAISE EXCEPTION 'conversation_history is no ordinary table of its own: this script does not '
            'fit it' USING HINT = 'memsync migrate plan says more.';
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
    -- Where memsync or a script of its own noted that it began, it goes on.
    IF pg_temp.has_note('mirror', 'made') OR EXISTS (
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
            USING HINT = 'Use memsync migrate run instead: this script begins where each of them is '
                         'wholly in its old place or wholly in its new one. Nothing was changed.';
    END IF;
END $fn$;

-- Stop before anything is changed where something is the operator's to decide.
DO $do$
DECLARE
    _missing text;
BEGIN
    SELECT string_agg(t, ', ') INTO _missing FROM unnest(ARRAY['conversation_history', 'personalities', 'personas', 'users']) AS t
    WHERE to_regclass(t) IS NULL;
    IF _missing IS NOT NULL THEN
        RAISE EXCEPTION 'this is not the app''s database: it has no table %', _missing
            USING HINT = 'Is its schema on the search_path?';
    END IF;
    IF NOT pg_temp.finished() THEN
        PERFORM pg_temp.require_fit();
        PERFORM pg_temp.require_decisions();
    END IF;
END $do$;


-- ==== expand ====
SELECT NOT pg_temp.finished() AS ahead \gset
\if :ahead
\echo 'expand: persona_id, and the trigger that gives each row the id that it lacks'
DO $do$
BEGIN
    PERFORM pg_temp.require(pg_temp.redesign_stands(), 'expand');
    PERFORM pg_temp.begin_phase('expand');
    IF NOT pg_temp.has_column('conversation_history', 'persona_id') THEN
        CALL pg_temp.run('conversation_history',
            ARRAY['ALTER TABLE conversation_history ADD COLUMN persona_id uuid']);
    END IF;
    IF pg_temp.has_column('conversation_history', 'user_id') THEN
        CALL pg_temp.run('users', ARRAY[
            pg_temp.pinned(pg_temp.filled('CREATE OR REPLACE VIEW memsync.persona_override AS {override}')),
            pg_temp.pinned(pg_temp.filled('CREATE OR REPLACE VIEW memsync.persona_default AS {default}')),
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
    created := gen_random_uuid();
    INSERT INTO personas (id, name, description, content, owner_id, created_at, updated_at)
    VALUES (created, left(called, 244) || '''s Persona', 'Default persona', '', for_user,
            timezone('UTC', clock_timestamp()), timezone('UTC', clock_timestamp()));
    {set_default};
    INSERT INTO memsync.created_persona (user_id, persona_id) VALUES (for_user, created)
    ON CONFLICT (user_id) DO UPDATE SET persona_id = excluded.persona_id;
    RETURN created;
END $$$q$)),
            pg_temp.pinned(pg_temp.filled($q$CREATE OR REPLACE FUNCTION memsync.sync_identity()
RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = {search_path} AS $$
DECLARE
    frozen uuid;
    owner uuid;
    standing record;
BEGIN
    -- An INSERT that will meet its own row (ON CONFLICT) decides and notes nothing.
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
    -- An old row that is edited before anything was decided is left to the fill.
    IF NEW.persona_id IS NULL AND TG_OP = 'UPDATE' AND OLD.persona_id IS NULL
       AND NOT EXISTS (SELECT FROM memsync.backfill WHERE fill = 'personas') THEN
        RETURN NEW;
    END IF;
    IF NEW.persona_id IS NULL AND TG_OP = 'UPDATE' THEN
        -- As the fill has it: the archive knows the row itself, else the map decides. Only
        -- personas that exist: a decision may outlive its persona until the next pass.
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
END $$$q$)),
            pg_temp.pinned(pg_temp.filled($q$CREATE OR REPLACE FUNCTION memsync.record_user_write()
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
END $$$q$)),
            pg_temp.pinned(pg_temp.filled('REVOKE ALL ON FUNCTION memsync.create_default_persona(uuid), memsync.sync_identity(), memsync.record_user_write() FROM PUBLIC'))]);
        IF NOT pg_temp.has_trigger('conversation_history', 'memsync_record_user_write') THEN
        CALL pg_temp.run('conversation_history', ARRAY[
            pg_temp.pinned(pg_temp.filled('CREATE TRIGGER memsync_record_user_write BEFORE INSERT ON conversation_history FOR EACH ROW WHEN (NEW.user_id IS NOT NULL) EXECUTE FUNCTION memsync.record_user_write()')),
            pg_temp.pinned(pg_temp.filled($q$SELECT setval('memsync.user_id_written_at', floor(extract(epoch FROM clock_timestamp()))::bigint,
              false)$q$))]);
        END IF;
        IF NOT pg_temp.has_trigger('conversation_history', 'memsync_sync_identity') THEN
        CALL pg_temp.run('conversation_history', ARRAY[
            pg_temp.pinned(pg_temp.filled('CREATE TRIGGER memsync_sync_identity BEFORE INSERT OR UPDATE ON conversation_history FOR EACH ROW WHEN (NEW.persona_id IS NULL OR NEW.user_id IS NULL) EXECUTE FUNCTION memsync.sync_identity()'))]);
        END IF;
    END IF;
    PERFORM pg_temp.end_phase();
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
                'none when user_id went; there is nothing left to recompute it from'));
    END IF;
    IF to_regclass('memsync.persona_map') IS NOT NULL THEN
        RETURN QUERY SELECT 'messages decided by ' || m.reason, sum(m.rows_count)::text
                     FROM memsync.persona_map m GROUP BY m.reason ORDER BY m.reason;
    END IF;
    RETURN QUERY SELECT 'seconds', round(extract(epoch FROM clock_timestamp()
        - current_setting('memsync.began')::timestamptz), 1)::text;
END $fn$;

SELECT item, value FROM pg_temp.summary();
