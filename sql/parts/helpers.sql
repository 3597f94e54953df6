-- ---- The schema as it is. All of these helpers are temporary, and end with this session.

CREATE OR REPLACE FUNCTION pg_temp.stands(_relation text, _kind text, _name text)
RETURNS boolean LANGUAGE sql AS $fn$
    SELECT EXISTS (SELECT FROM ({{objects_of_relation}}) o
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
    SELECT k.valid FROM ({{constraints_of_table}}) k WHERE k.name = _name
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
    RETURN NOT ({{query:way_back_is_open}});
END $fn$;

-- The triggers that keep the old places of the settings and the new tables in sync.
CREATE OR REPLACE FUNCTION pg_temp.sync_triggers()
RETURNS TABLE (old_table text, old_column text, on_table text, name text, stated text)
LANGUAGE sql AS $fn$
    VALUES {{sync_triggers}}
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
            FROM unnest({{new_columns}}) AS c)
       AND (SELECT bool_and(pg_temp.has_index(t, i))
            FROM (VALUES {{settings_indexes}}) AS v(t, i))
       AND pg_temp.is_valid('llm_configs', '{{settings:CONFIG_OWNER_KEY}}') IS NOT NULL
       AND NOT EXISTS (SELECT FROM pg_temp.wanted_sync_triggers() w
                       WHERE NOT pg_temp.has_trigger(w.on_table, w.name))
$fn$;

CREATE OR REPLACE FUNCTION pg_temp.old_settings_are_gone() RETURNS boolean LANGUAGE sql AS $fn$
    SELECT NOT EXISTS (SELECT FROM (VALUES {{old_columns}}) AS v(t, c)
                       WHERE pg_temp.has_column(t, c))
       AND to_regclass('user_personality_settings') IS NULL
       AND pg_temp.is_not_null('personas', 'owner_id')
$fn$;

-- Whether everything that reading by persona needs exists.
CREATE OR REPLACE FUNCTION pg_temp.reads_by_persona() RETURNS boolean LANGUAGE sql AS $fn$
    SELECT pg_temp.has_index('conversation_history', '{{catalog:PERSONA_INDEX}}')
       AND pg_temp.has_index('conversation_history', '{{catalog:RETRIEVAL_INDEX}}')
       AND coalesce(pg_temp.is_valid('conversation_history', '{{catalog:PERSONA_KEY}}'), false)
       AND to_regclass('memsync.outbox') IS NOT NULL
$fn$;

CREATE OR REPLACE FUNCTION pg_temp.is_backfilled() RETURNS boolean LANGUAGE plpgsql AS $fn$
BEGIN
    IF NOT pg_temp.has_users() THEN
        RETURN true;
    END IF;
    IF NOT pg_temp.has_trigger('conversation_history', '{{catalog:IDENTITY_TRIGGER}}')
       OR NOT pg_temp.has_column('conversation_history', 'persona_id')
       OR NOT pg_temp.reads_by_persona() THEN
        RETURN false;
    END IF;
    RETURN pg_temp.is_not_null('conversation_history', 'persona_id')
        OR NOT ({{query:history_has_null_persona}});
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
            THEN $q${{query:open_all}}$q$
        WHEN _hole = 'open' AND to_regclass('memsync.persona_map') IS NOT NULL
            THEN $q${{query:open_undecided}}$q$
        WHEN _hole = 'open' THEN $q${{query:open_unfilled}}$q$
        WHEN _hole = 'override' AND _old AND _new THEN $q${{query:override_both}}$q$
        WHEN _hole = 'override' AND _old THEN $q${{query:override_old}}$q$
        WHEN _hole = 'override' AND _new THEN $q${{query:override_new}}$q$
        WHEN _hole = 'default' AND _old AND _new THEN $q${{query:default_both}}$q$
        WHEN _hole = 'default' AND _old THEN $q${{query:default_old}}$q$
        WHEN _hole = 'default' AND _new THEN $q${{query:default_new}}$q$ END;
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
            WHEN $q${{query:default_old}}$q$ THEN $q${{query:set_default_old}}$q$
            WHEN $q${{query:default_both}}$q$ THEN $q${{query:set_default_both}}$q$
            ELSE $q${{query:set_default_new}}$q$ END)
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
    WITH grants AS ({{query:table_grants}}),
    single AS ({{query:column_grants}})
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
$fn$ SELECT replace(replace($q${{query:note_change}}$q$, '{object}', quote_literal(_object)),
                    '{change}', quote_literal(_change)) $fn$;

-- The same for an object of the history.
CREATE OR REPLACE FUNCTION pg_temp.noted_of_history(_object text, _change text)
RETURNS text LANGUAGE sql AS
$fn$ SELECT replace(replace($q${{query:note_history_change}}$q$, '{object}', quote_literal(_object)),
                    '{change}', quote_literal(_change)) $fn$;

CREATE OR REPLACE FUNCTION pg_temp.unnoted_of_history(_object text) RETURNS text LANGUAGE sql AS
$fn$ SELECT replace($q${{query:forget_history_change}}$q$, '{object}', quote_literal(_object)) $fn$;

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
$fn$ {{query:schema_of}} $fn$;

-- Columns that an INSERT may name, in their order.
CREATE OR REPLACE FUNCTION pg_temp.insertable(_relation text)
RETURNS TABLE (name text, n bigint) LANGUAGE sql AS $fn$
    SELECT i.name::text, row_number() OVER () FROM ({{query:insertable}}) i
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
    FROM ({{query:blockers}}) b
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
    _version CONSTANT text := '{{version}} (psql)';
    -- What goes on with a script that was cut short: up to backfill, unless contract had begun.
    _options CONSTANT json := CASE WHEN _verb = 'run' THEN json_strip_nulls(json_build_object(
        'to', CASE WHEN _phase <> 'contract' THEN 'backfill' END,
        'unresolved', nullif(current_setting('memsync.unresolved'), 'fail')))
        ELSE json_build_object('to', 'redesign') END;
    _entry bigint;
BEGIN
    PERFORM pg_temp.require(to_regclass('memsync.runs') IS NOT NULL, _phase);
    {{query:begin_record}} INTO _entry;
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
    {{query:end_record}};
    PERFORM set_config('memsync.lock_waits', '0', false),
            set_config('memsync.rows_filled', '0', false);
END $fn$;


-- ---- Owners of personas, and users without a persona.

CREATE OR REPLACE FUNCTION pg_temp.orphans()
RETURNS TABLE (id uuid, name text, users uuid[]) LANGUAGE plpgsql AS $fn$
BEGIN
    RETURN QUERY EXECUTE pg_temp.filled($q$
        SELECT o.id, o.name::text, o.users FROM ({{query:orphan_personas}}) o$q$);
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
        FROM ({{query:unresolved_users}}) u$q$) INTO _total, _rows, _named;
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
    {{query:give_owner}};
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
       OR NOT pg_temp.has_trigger('conversation_history', '{{catalog:IDENTITY_TRIGGER}}') THEN
        RETURN;
    END IF;
    SELECT coalesce(max(w.wrong_total), 0),
           string_agg(format('message %s has persona %s, %s %s',
                             w.id, w.persona_id, w.by_whom, w.expected), '; ')
    INTO _total, _named FROM ({{query:verify_rows}}) w;
END $fn$;

-- Stops unless every message has a persona that exists and that the settings say.
CREATE OR REPLACE FUNCTION pg_temp.prove() RETURNS void LANGUAGE plpgsql AS $fn$
DECLARE
    _counts record;
    _wrong record;
BEGIN
    {{query:verify_counts}} INTO _counts;
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
