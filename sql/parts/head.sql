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
    {{query:pinned_settings}},
    ('idle_in_transaction_session_timeout', '0'), ('statement_timeout', '0'),
    ('row_security', 'off')) AS pinned(name, value)
WHERE current_setting(name, true) <> value
\g /dev/null
{{query:heavy_work}}
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
                             ({{query:deadlock_patience}}))::text, false);
    IF current_setting('server_version_num')::int < {{catalog:SERVER_VERSION_MIN}} THEN
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
