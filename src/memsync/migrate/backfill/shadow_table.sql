-- The shadow table is memsync_shadow.conversation_history. Its indexes and constraints have the
-- names of the history's own, so that the cut-over only changes schemas. The history then moves to
-- memsync_retired. carry.sql has the queries that carry the history's definition over.

-- name: shadow_state
-- Whether a shadow table is half done, whether one took the history's place, and whether a schema
-- of either is left.
SELECT coalesce(bool_or(n.nspname = 'memsync_shadow' AND c.oid IS NOT NULL), false) AS begun,
       coalesce(bool_or(n.nspname = 'memsync_retired' AND c.oid IS NOT NULL), false) AS cut_over,
       count(n.oid) > 0 AS found
FROM pg_namespace n
LEFT JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = 'conversation_history'
WHERE n.nspname IN ('memsync_shadow', 'memsync_retired');

-- name: history_definition
-- A digest of what the shadow table is made from: columns, indexes, constraints, grants, comments.
SELECT md5(concat_ws(E'\n',
    (SELECT string_agg(concat_ws(' ', a.attname, format_type(a.atttypid, a.atttypmod),
                a.attnotnull, a.attstorage, a.attcompression, a.attcollation, a.attstattarget,
                a.attoptions, a.attacl, pg_get_expr(d.adbin, d.adrelid)), E'\n' ORDER BY a.attnum)
     FROM pg_attribute a
     LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
     WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped),
    (SELECT string_agg(concat_ws(' ', pg_get_indexdef(i.indexrelid), i.indisvalid,
                i.indisclustered, i.indisreplident), E'\n' ORDER BY i.indexrelid)
     FROM pg_index i WHERE i.indrelid = c.oid),
    (SELECT string_agg(concat_ws(' ', k.conname, pg_get_constraintdef(k.oid)), E'\n'
                       ORDER BY k.conname)
     FROM pg_constraint k WHERE k.conrelid = c.oid AND k.contype <> 't'),
    (SELECT string_agg(concat_ws(' ', e.objoid, e.objsubid, e.description), E'\n'
                       ORDER BY e.objoid, e.objsubid)
     FROM pg_description e
     WHERE e.classoid = 'pg_class'::regclass AND e.objoid = c.oid
        OR e.classoid = 'pg_class'::regclass
           AND e.objoid IN (SELECT indexrelid FROM pg_index WHERE indrelid = c.oid)
        OR e.classoid = 'pg_constraint'::regclass
           AND e.objoid IN (SELECT oid FROM pg_constraint WHERE conrelid = c.oid)),
    c.relowner, c.relacl, c.reloptions, c.relreplident)) AS digest
FROM pg_class c WHERE c.oid = to_regclass('conversation_history');

-- name: shadow_columns
-- The columns, in their order.
SELECT attname AS name FROM pg_attribute
WHERE attrelid = to_regclass('conversation_history') AND attnum > 0 AND NOT attisdropped
ORDER BY attnum;

-- name: halve_lock_timeout
-- Halves lock_timeout for the rest of this transaction, because waits for several locks add up.
SELECT set_config('lock_timeout', greatest(setting::int / 2, 1)::text, true)
FROM pg_settings WHERE name = 'lock_timeout';

-- name: has_extended_statistics
-- Whether there are extended statistics; the cut-over leaves them empty.
SELECT EXISTS (SELECT FROM pg_statistic_ext
               WHERE stxrelid = to_regclass('conversation_history')) AS found;

-- name: analyze_after_cutover
-- Fills the extended statistics.
ANALYZE conversation_history;

-- name: start_shadow
-- Opens the checkpoint of a shadow table, in the transaction that creates the trigger. Every later
-- write is in the change log.
INSERT INTO memsync_shadow.checkpoint (source, filenode, definition, next_block, end_block)
SELECT c.oid, pg_relation_filenode(c.oid), %(definition)s, 0,
       pg_relation_size(c.oid) / current_setting('block_size')::int + 1
FROM pg_class c WHERE c.oid = to_regclass('conversation_history');

-- name: shadow_checkpoint
-- The checkpoint, and whether the history is still the table that was copied: not truncated, not
-- rewritten, its trigger in place.
SELECT p.next_block, p.end_block, p.definition,
       p.source = to_regclass('conversation_history')
       AND p.filenode IS NOT DISTINCT FROM pg_relation_filenode(p.source)
       AND EXISTS (SELECT FROM pg_trigger t
                   WHERE t.tgrelid = p.source AND t.tgname = 'memsync_log_change'
                     AND t.tgenabled = 'A') AS stands
FROM memsync_shadow.checkpoint p;

-- name: save_shadow
-- Moves the checkpoint, in the transaction of the slice.
-- lint: allow NO-WHERE the table has one row
UPDATE memsync_shadow.checkpoint SET next_block = %(next_block)s;

-- fragment: shadow_rows
-- Where copied rows and their personas come from. The join takes a third of the time of a subquery
-- for each row.
FROM conversation_history h
LEFT JOIN memsync.persona_map m ON m.user_id = h.user_id AND m.personality_id = h.personality_id
LEFT JOIN ({archived_personas}) k ON k.history_id = h.id

-- fragment: of_rows_unchanged
-- One range of blocks, without the rows in the change log: the replay copies those, and so no row
-- comes twice.
WHERE h.ctid >= %(start)s::tid AND h.ctid < %(stop)s::tid
  AND NOT EXISTS (SELECT FROM memsync_shadow.change_log t WHERE t.id = h.id)

-- fragment: of_rows_changed
-- Rows by their ids.
WHERE h.id = ANY(%(ids)s)

-- name: take_changes
-- Takes the oldest entries from the change log. A later entry for the same row copies it once more,
-- which does no harm.
DELETE FROM memsync_shadow.change_log
WHERE n = ANY(ARRAY(SELECT n FROM memsync_shadow.change_log ORDER BY n LIMIT %(limit)s))
RETURNING id;

-- name: changes_left
-- Whether the change log has entries. It reads the primary key, because an empty log may have many
-- pages.
SELECT min(n) IS NOT NULL AS found FROM memsync_shadow.change_log;

-- name: vacuum_change_log
-- Removes replayed entries from the primary key of the log, before the cut-over reads it.
VACUUM (TRUNCATE false) memsync_shadow.change_log;

-- name: remove_from_shadow
-- Removes rows from the shadow table.
DELETE FROM memsync_shadow.conversation_history WHERE id = ANY(%(ids)s);

-- name: vacuum_shadow
-- Marks the pages of the shadow table all-visible, for index-only scans. Early is cheaper, because
-- a later VACUUM would read each page again and write it whole to WAL.
-- https://www.postgresql.org/docs/current/storage-vm.html
VACUUM (TRUNCATE false) memsync_shadow.conversation_history;

-- name: shadow_hidden
-- How many pages of the shadow table VACUUM could not mark.
SELECT (relpages - relallvisible)::bigint AS blocks FROM pg_class
WHERE oid = to_regclass('memsync_shadow.conversation_history');

-- name: analyze_shadow
-- Collects statistics, because the planner plans badly without them.
ANALYZE memsync_shadow.conversation_history;

-- name: moment
-- The time, and the id of this transaction. A later snapshot sees everything that was committed by
-- then.
SELECT clock_timestamp() AS at, pg_current_xact_id()::xid::text AS xact;

-- name: older_snapshots
-- Sessions whose snapshot may be older than the given moment; they would not see the rows of the
-- shadow table. A READ COMMITTED transaction has no snapshot between its statements.
SELECT a.pid, coalesce(a.state, 'of another role') AS state,
       left({blanked_query}, 200) AS query,
       coalesce(extract(epoch FROM clock_timestamp() - a.xact_start), 0)::float AS open_s
FROM pg_stat_activity a
WHERE a.pid <> pg_backend_pid() AND a.datname = current_database() AND a.usesysid IS NOT NULL
  AND a.backend_xmin IS NOT NULL
  AND (coalesce(a.xact_start < %(at)s, age(a.backend_xmin) >= age(%(xact)s::xid))
       OR a.state LIKE 'idle in transaction%%')
ORDER BY a.xact_start LIMIT 5;

-- name: create_shadow_schema
-- The schema of the shadow table.
CREATE SCHEMA IF NOT EXISTS memsync_shadow;

-- name: create_retired_schema
-- The schema for the retired history.
CREATE SCHEMA IF NOT EXISTS memsync_retired;

-- name: create_shadow_checkpoint
-- How far the copy came, and which table it is made from.
CREATE TABLE memsync_shadow.checkpoint (
    source oid NOT NULL,
    filenode oid NOT NULL,
    definition text NOT NULL,
    next_block bigint NOT NULL,
    end_block bigint NOT NULL);

-- name: create_change_log
-- The ids of rows that were written since the shadow table was begun.
CREATE TABLE memsync_shadow.change_log (
    n bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id uuid NOT NULL);

-- name: create_change_log_index
-- Finds the entries of a row, because each slice asks for its rows and the log is long after a
-- pause.
CREATE INDEX change_log_id_idx ON memsync_shadow.change_log (id);

-- name: define_log_change
-- Logs the id of a row that is written, and its old id where that changes. Runs with its owner's
-- privileges, because clients have none in memsync's schemas.
CREATE FUNCTION memsync_shadow.log_change()
RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF TG_OP <> 'INSERT' THEN
        INSERT INTO memsync_shadow.change_log (id) VALUES (OLD.id);
    END IF;
    IF TG_OP = 'INSERT' OR TG_OP = 'UPDATE' AND NEW.id <> OLD.id THEN
        INSERT INTO memsync_shadow.change_log (id) VALUES (NEW.id);
    END IF;
    RETURN NULL;
END $$;

-- name: revoke_log_change
-- Postgres checks EXECUTE when a trigger is created, not when it fires. So clients need no grant,
-- and without one they cannot put the function on a table of their own.
-- https://www.postgresql.org/docs/current/sql-createtrigger.html
REVOKE ALL ON FUNCTION memsync_shadow.log_change() FROM PUBLIC;

-- name: create_log_change_trigger
-- Logs every write of the history.
CREATE TRIGGER memsync_log_change AFTER INSERT OR UPDATE OR DELETE ON conversation_history
    FOR EACH ROW EXECUTE FUNCTION memsync_shadow.log_change();

-- name: always_log_changes
-- Fires in sessions that apply replicated changes too; ordinary triggers do not.
ALTER TABLE conversation_history ENABLE ALWAYS TRIGGER memsync_log_change;

-- name: lock_shadow
-- Waits for sessions that still work on the shadow table. Only memsync writes to it, apart from
-- deletions by its foreign keys.
LOCK TABLE memsync_shadow.conversation_history IN SHARE ROW EXCLUSIVE MODE;

-- name: lock_history
-- Keeps all other sessions out for the cut-over.
-- lint: allow STRONG-LOCK half of lock_timeout at most: the cut-over needs it
LOCK TABLE conversation_history IN ACCESS EXCLUSIVE MODE;

-- name: drop_log_change_trigger
-- Ends the logging.
DROP TRIGGER IF EXISTS memsync_log_change ON conversation_history;

-- name: disable_user_triggers
-- Disables the app's triggers but not those of foreign keys, so that deleting a user still deletes
-- rows of the retired history.
ALTER TABLE conversation_history DISABLE TRIGGER USER;

-- name: retire_history
-- Moves the history out of its place.
ALTER TABLE conversation_history SET SCHEMA memsync_retired;

-- name: place_shadow
-- Moves the shadow table into the place of the history.
ALTER TABLE memsync_shadow.conversation_history SET SCHEMA {schema};

-- name: drop_shadow_tables
-- Drops the shadow table and the retired history, as far as they exist.
DROP TABLE IF EXISTS memsync_shadow.conversation_history, memsync_retired.conversation_history;

-- name: drop_shadow_logs
-- Drops the change log and the checkpoint.
DROP TABLE IF EXISTS memsync_shadow.change_log, memsync_shadow.checkpoint;

-- name: drop_log_change
-- Drops the function of the trigger.
DROP FUNCTION IF EXISTS memsync_shadow.log_change();

-- name: drop_shadow_schemas
-- Drops both schemas.
DROP SCHEMA IF EXISTS memsync_shadow, memsync_retired;

-- name: insert_into_shadow
-- Copies rows of the history into the shadow table: {values} for {columns}, of the rows that
-- {of_rows} selects.
INSERT INTO memsync_shadow.conversation_history ({columns})
SELECT {values} {shadow_rows} {of_rows};
