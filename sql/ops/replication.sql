-- The receivers of what this server writes, and how far behind each is: standbys, slots, and the
-- publications that include the history. Reads only.
\set ON_ERROR_STOP on
SELECT application_name, client_addr, state, sync_state, replay_lag,
       pg_size_pretty(pg_wal_lsn_diff(sent_lsn, replay_lsn)) AS behind
FROM pg_stat_replication ORDER BY application_name, client_addr;
SELECT slot_name, slot_type, active,
       CASE WHEN NOT pg_is_in_recovery()
            THEN pg_size_pretty(pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn))
       END AS kept_on_disk
FROM pg_replication_slots ORDER BY slot_name;
SELECT pubname, schemaname, tablename, attnames AS columns
FROM pg_publication_tables WHERE tablename = 'conversation_history' ORDER BY pubname;
