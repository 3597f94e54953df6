-- The questions of the preflight. Reads only.

-- name: preflight_server
-- The server's version, whether it is a standby, and the settings that matter.
SELECT current_setting('server_version') AS version,
       pg_is_in_recovery() AS standby,
       current_setting('default_transaction_read_only')::bool AS read_only,
       current_setting('autovacuum')::bool AND current_setting('track_counts')::bool AS autovacuum;

-- name: preflight_owners
-- The owners of the named tables, and what this role may do with them and with their schema.
SELECT name, c.relkind IN ('r', 'p') AS is_table, pg_get_userbyid(c.relowner) AS owner,
       pg_has_role(c.relowner, 'USAGE') AS owned,
       has_table_privilege(c.oid, 'REFERENCES') AS may_refer,
       n.nspname AS schema, has_schema_privilege(n.oid, 'CREATE') AS may_create
FROM unnest(%(names)s::text[]) AS name
JOIN pg_class c ON c.oid = to_regclass(name)
JOIN pg_namespace n ON n.oid = c.relnamespace;

-- name: preflight_grants
-- Whether this role may create the schema memsync, or use the one that stands, and whether it sees
-- what other sessions do.
SELECT current_user AS role, current_database() AS database,
       to_regnamespace('memsync') IS NOT NULL AS there,
       CASE WHEN to_regnamespace('memsync') IS NULL
            THEN has_database_privilege(current_database(), 'CREATE')
            ELSE has_schema_privilege('memsync', 'USAGE')
                 AND has_schema_privilege('memsync', 'CREATE') END AS schema_ours,
       pg_has_role('pg_read_all_stats', 'USAGE') AS sees_others;

-- name: preflight_transactions
-- Transactions of this database that have been open for long, oldest first: an index build waits
-- for each.
SELECT pid, coalesce(state, 'of another role') AS state,
       left({blanked_query}, 200) AS query,
       extract(epoch FROM clock_timestamp() - xact_start)::float AS open_s
FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid()
  AND backend_type <> 'autovacuum worker'
  AND xact_start <= clock_timestamp() - make_interval(secs => %(older_s)s)
ORDER BY xact_start LIMIT 20;

-- name: preflight_prepared
-- Prepared transactions, which have no session and hold their locks until somebody ends them.
-- `locked` names those of the given tables that each has locked.
SELECT p.gid, p.owner, extract(epoch FROM clock_timestamp() - p.prepared)::float AS open_s,
       ARRAY(SELECT DISTINCT t.name FROM unnest(%(names)s::text[]) AS t(name)
             JOIN pg_locks l ON l.relation = to_regclass(t.name)
             JOIN pg_locks own USING (virtualtransaction)
             WHERE l.pid IS NULL AND own.pid IS NULL AND own.transactionid = p.transaction
             ORDER BY 1) AS locked
FROM pg_prepared_xacts p WHERE p.database = current_database() ORDER BY p.prepared;

-- name: preflight_replicas
-- How many standbys there are, and how far the last of them is behind.
SELECT count(*) AS replicas,
       coalesce(extract(epoch FROM max(replay_lag)), 0)::float AS lag_s
FROM pg_stat_replication;

-- name: preflight_commits
-- How many synchronous standbys a commit waits for, and how many are connected. `seen`: this role
-- sees which of them are synchronous.
SELECT s.names, current_setting('synchronous_commit') AS level,
       coalesce(substring(s.names FROM '(?i)^\s*(?:first|any)?\s*(\d+)\s*\(')::int, 1) AS wanted,
       (SELECT count(*) FROM pg_stat_replication
        WHERE sync_state IN ('sync', 'quorum') AND state = 'streaming') AS connected,
       pg_has_role('pg_read_all_stats', 'USAGE') AS seen
FROM (SELECT current_setting('synchronous_standby_names') AS names) s;

-- name: preflight_slots
-- Logical replication slots of this database: for an idle one the server keeps all WAL.
SELECT slot_name AS name, active FROM pg_replication_slots
WHERE slot_type = 'logical' AND database = current_database() ORDER BY 1;

-- name: preflight_published
-- The publications that carry updates or deletes of one of the named tables, or of a partition.
SELECT DISTINCT quote_ident(p.pubname) AS name
FROM pg_publication_tables t JOIN pg_publication p USING (pubname)
JOIN pg_class c ON c.relname = t.tablename
JOIN pg_namespace n ON n.oid = c.relnamespace AND n.nspname = t.schemaname
JOIN unnest(%(names)s::text[]) AS name
  ON c.oid = to_regclass(name)
     OR c.oid IN (SELECT relid FROM pg_partition_tree(to_regclass(name)))
WHERE p.pubupdate OR p.pubdelete ORDER BY 1;

-- name: preflight_publications
-- The publications that carry the history.
SELECT p.pubname AS name
FROM pg_publication_tables t JOIN pg_publication p USING (pubname)
JOIN pg_class c ON c.relname = t.tablename AND c.oid = to_regclass('conversation_history')
JOIN pg_namespace n ON n.oid = c.relnamespace AND n.nspname = t.schemaname
ORDER BY 1;

-- name: preflight_subscriptions
-- The subscriptions that write the history: their rows do not fire the sync trigger.
SELECT s.subname AS name FROM pg_subscription_rel r JOIN pg_subscription s ON s.oid = r.srsubid
WHERE r.srrelid = to_regclass('conversation_history') ORDER BY 1;

-- name: preflight_shape
-- The kind of table that the history is, whether some rows are hidden from this role, and how near
-- it is to a vacuum that does not give way.
SELECT c.relkind::text AS kind, c.relpersistence::text AS persistence,
       EXISTS (SELECT FROM pg_inherits WHERE inhrelid = c.oid) AS child,
       EXISTS (SELECT FROM pg_inherits WHERE inhparent = c.oid) AS parent,
       row_security_active(c.oid) AS hides_rows,
       c.relreplident::text AS identity,
       EXISTS (SELECT FROM pg_index i JOIN pg_attribute a ON a.attrelid = c.oid
               WHERE i.indrelid = c.oid AND i.indisreplident AND a.attname = 'user_id'
                 AND a.attnum = ANY (i.indkey)) AS identity_by_user,
       age(c.relfrozenxid)::bigint AS xid_age,
       coalesce((SELECT least(option_value::bigint,
                              current_setting('autovacuum_freeze_max_age')::bigint)
                 FROM pg_options_to_table(c.reloptions)
                 WHERE option_name = 'autovacuum_freeze_max_age'),
                current_setting('autovacuum_freeze_max_age')::bigint) AS xid_age_max
FROM pg_class c WHERE c.oid = to_regclass('conversation_history');

-- name: preflight_dependents
-- Objects that depend on one column, without its own default. One that `blocks` makes DROP COLUMN
-- fail, any other is dropped with the column. A check depends on it twice, and is dropped.
SELECT bool_and(d.deptype = 'n') AS blocks,
       coalesce(i.relname, k.conname, t.tgname) AS name,
       CASE v.relkind WHEN 'v' THEN 'view ' || v.oid::regclass
                      WHEN 'm' THEN 'materialized view ' || v.oid::regclass
                      ELSE pg_describe_object(d.classid, d.objid, d.objsubid) END AS what
FROM pg_depend d
JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
LEFT JOIN pg_class i ON d.classid = 'pg_class'::regclass AND i.oid = d.objid
LEFT JOIN pg_constraint k ON d.classid = 'pg_constraint'::regclass AND k.oid = d.objid
LEFT JOIN pg_trigger t ON d.classid = 'pg_trigger'::regclass AND t.oid = d.objid
LEFT JOIN pg_rewrite r ON d.classid = 'pg_rewrite'::regclass AND r.oid = d.objid
LEFT JOIN pg_class v ON v.oid = r.ev_class
WHERE d.refclassid = 'pg_class'::regclass AND d.refobjid = to_regclass(%(relation)s)
  AND a.attname = %(column)s
  AND NOT (d.classid = 'pg_attrdef'::regclass AND d.deptype = 'a')
GROUP BY 2, 3 ORDER BY 3;

-- name: preflight_dependents_of_view
-- Objects that depend on a view or on any of its columns. One that `blocks` makes DROP VIEW fail,
-- any other is dropped with it.
SELECT DISTINCT d.deptype = 'n' AS blocks,
       CASE v.relkind WHEN 'v' THEN 'view ' || v.oid::regclass
                      WHEN 'm' THEN 'materialized view ' || v.oid::regclass
                      ELSE pg_describe_object(d.classid, d.objid, d.objsubid) END AS what
FROM pg_class c
JOIN pg_depend d ON (d.refclassid, d.refobjid) IN (('pg_class'::regclass, c.oid),
                                                   ('pg_type'::regclass, c.reltype))
LEFT JOIN pg_rewrite r ON d.classid = 'pg_rewrite'::regclass AND r.oid = d.objid
LEFT JOIN pg_class v ON v.oid = r.ev_class
WHERE c.oid = to_regclass(%(relation)s) AND d.deptype IN ('n', 'a')
  AND r.ev_class IS DISTINCT FROM c.oid
ORDER BY 2;

-- name: preflight_triggers
-- Triggers of the history that are not memsync's; whether their functions read the row's user_id.
SELECT t.tgname AS name, t.tgfoid::regproc::text AS function,
       p.prosrc ~* '\m(new|old)\s*\.\s*"?user_id\M' AS reads_user, (t.tgtype & 16) <> 0 AS on_update
FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid
WHERE t.tgrelid = to_regclass('conversation_history') AND NOT t.tgisinternal
  AND t.tgenabled <> 'D' AND NOT starts_with(t.tgname, 'memsync_')
ORDER BY 1;

-- name: preflight_functions
-- Functions whose text names the history and user_id; the text may also be a comment.
SELECT p.oid::regprocedure::text AS name
FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
WHERE n.nspname NOT IN ('pg_catalog', 'information_schema', 'memsync')
  AND p.prosrc ~ '\mconversation_history\M' AND p.prosrc ~ '\muser_id\M'
ORDER BY 1;

-- name: preflight_rules
-- Rewrite rules on the history; those on UPDATE change what the fill does.
SELECT rulename AS name, ev_type = '2' AS on_update FROM pg_rewrite
WHERE ev_class = to_regclass('conversation_history') ORDER BY 1;

-- name: preflight_column_grants
-- Grants on user_id alone, which persona_id does not have yet.
SELECT CASE g.grantee WHEN 0 THEN 'PUBLIC' ELSE g.grantee::regrole::text END AS role,
       string_agg(DISTINCT g.privilege_type, ', ' ORDER BY g.privilege_type) AS rights,
       string_agg(DISTINCT g.privilege_type || ' (persona_id)', ', '
                  ORDER BY g.privilege_type || ' (persona_id)') AS wanted
FROM pg_attribute a CROSS JOIN LATERAL aclexplode(a.attacl) g
WHERE a.attrelid = to_regclass('conversation_history') AND a.attname = 'user_id'
  AND NOT EXISTS (SELECT FROM pg_attribute b CROSS JOIN LATERAL aclexplode(b.attacl) s
                  WHERE b.attrelid = a.attrelid AND b.attname = 'persona_id'
                    AND s.grantee = g.grantee AND s.privilege_type = g.privilege_type)
GROUP BY 1 ORDER BY 1;

-- name: preflight_referrers
-- Foreign keys of other tables that point at the history.
SELECT conrelid::regclass::text AS relation, conname AS name FROM pg_constraint
WHERE contype = 'f' AND confrelid = to_regclass('conversation_history') ORDER BY 1, 2;

-- name: preflight_event_triggers
-- Event triggers: each may inspect memsync's DDL, and refuse it.
SELECT evtname AS name FROM pg_event_trigger WHERE evtenabled <> 'D' ORDER BY 1;

-- name: preflight_vacuum
-- The vacuum of the history that is running. One that a person started, or one against wraparound,
-- does not give way to a lock.
SELECT a.pid, a.backend_type = 'autovacuum worker' AND a.query !~ 'to prevent wraparound'
       AS gives_way
FROM pg_stat_progress_vacuum v JOIN pg_stat_activity a USING (pid)
WHERE v.relid = to_regclass('conversation_history');

-- name: preflight_limits
-- Settings of roles or this database that matter to the migration. `ours`: it holds for this role.
SELECT split_part(entry, '=', 1) AS name, split_part(entry, '=', 2) AS value,
       CASE WHEN s.setrole <> 0 THEN 'ROLE ' || s.setrole::regrole::text ELSE '' END
       || CASE WHEN s.setrole <> 0 AND s.setdatabase <> 0 THEN ' IN ' ELSE '' END
       || CASE WHEN s.setdatabase <> 0 THEN 'DATABASE ' || quote_ident(current_database())
               ELSE '' END AS whose,
       s.setrole = 0 OR s.setrole::regrole::text = quote_ident(current_user) AS ours
FROM pg_db_role_setting s CROSS JOIN LATERAL unnest(s.setconfig) AS entry
WHERE s.setdatabase IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))
  AND split_part(entry, '=', 1) = ANY(%(names)s)
ORDER BY 3, 1;

-- name: preflight_ownerless
-- Personas without an owner, and how many there are.
SELECT id, name, count(*) OVER () AS total FROM personas
WHERE owner_id IS NULL ORDER BY id LIMIT %(limit)s;

-- name: preflight_unknown
-- Messages whose persona does not exist, and how many there are.
SELECT h.id, h.persona_id, count(*) OVER () AS total
FROM conversation_history h LEFT JOIN personas p ON p.id = h.persona_id
WHERE h.persona_id IS NOT NULL AND p.id IS NULL ORDER BY h.id LIMIT %(limit)s;
