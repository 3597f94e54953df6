-- The shadow table is memsync_shadow.conversation_history. Its indexes and constraints bear the names
-- of the history's own, so that the cut-over is a change of schemas. The history retires to
-- memsync_retired. A query named carry_... returns statements that put onto the shadow table what
-- hangs on the history: they are written for the shadow table, or for the history's name where they
-- run after the cut-over.

-- name: shadow_state
-- Whether a copy is half done, whether one took the history's place, and whether anything is left.
SELECT coalesce(bool_or(n.nspname = 'memsync_shadow' AND c.oid IS NOT NULL), false) AS begun,
       coalesce(bool_or(n.nspname = 'memsync_retired' AND c.oid IS NOT NULL), false) AS cut_over,
       count(n.oid) > 0 AS found
FROM pg_namespace n
LEFT JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = 'conversation_history'
WHERE n.nspname IN ('memsync_shadow', 'memsync_retired');

-- name: history_definition
-- A digest of what the copy was made from: columns, indexes, constraints, rights, comments.
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

-- name: grant_shadow_schemas
-- Lets the history's owner into the schemas of the copy: keys are looked after as the owner.
SELECT format('GRANT USAGE, CREATE ON SCHEMA memsync_shadow, memsync_retired TO %%I',
              pg_get_userbyid(relowner)) AS statement
FROM pg_class WHERE oid = to_regclass('conversation_history');

-- name: carry_table
-- The copy itself: columns, defaults, checks, storage, options. Autovacuum would hold up the
-- building of indexes.
SELECT format('CREATE TABLE memsync_shadow.conversation_history (LIKE %%s INCLUDING DEFAULTS'
              ' INCLUDING CONSTRAINTS INCLUDING STORAGE INCLUDING COMPRESSION INCLUDING COMMENTS)'
              ' WITH (autovacuum_enabled = false%%s)', c.oid::regclass,
              (SELECT string_agg(format(', %%s%%I = %%L', o.prefix, split_part(o.option, '=', 1),
                                        substr(o.option, strpos(o.option, '=') + 1)), '')
               FROM (SELECT '' AS prefix, unnest(c.reloptions) AS option
                     UNION ALL SELECT 'toast.', unnest(t.reloptions)) o
               WHERE o.prefix || o.option NOT LIKE 'autovacuum\_enabled=%%')) AS statement
FROM pg_class c LEFT JOIN pg_class t ON t.oid = c.reltoastrelid
WHERE c.oid = to_regclass('conversation_history');

-- name: carry_columns
-- Statistics targets and options of columns.
SELECT format('ALTER TABLE memsync_shadow.conversation_history ALTER %%I SET STATISTICS %%s',
              attname, attstattarget) AS statement
FROM pg_attribute
WHERE attrelid = to_regclass('conversation_history') AND attnum > 0 AND NOT attisdropped
  AND attstattarget >= 0
UNION ALL
SELECT format('ALTER TABLE memsync_shadow.conversation_history ALTER %%I SET (%%s)', attname,
              array_to_string(attoptions, ', '))
FROM pg_attribute
WHERE attrelid = to_regclass('conversation_history') AND attnum > 0 AND NOT attisdropped
  AND attoptions IS NOT NULL;

-- name: carry_owner
-- The owner.
SELECT format('ALTER TABLE memsync_shadow.conversation_history OWNER TO %%I',
              pg_get_userbyid(relowner)) AS statement
FROM pg_class WHERE oid = to_regclass('conversation_history');

-- name: clear_default_grants
-- Takes from the copy what ALTER DEFAULT PRIVILEGES gave it.
SELECT statement FROM (
    SELECT 1 AS step, format('REVOKE ALL ON memsync_shadow.conversation_history FROM %%s',
                     CASE a.grantee WHEN 0 THEN 'PUBLIC'
                     ELSE quote_ident(pg_get_userbyid(a.grantee)) END) AS statement
    FROM pg_class c, aclexplode(c.relacl) a
    WHERE c.oid = to_regclass('memsync_shadow.conversation_history')
    UNION
    SELECT 2, format('GRANT ALL ON memsync_shadow.conversation_history TO %%I',
                     pg_get_userbyid(c.relowner))
    FROM pg_class c
    WHERE c.oid = to_regclass('memsync_shadow.conversation_history') AND c.relacl IS NOT NULL) found
ORDER BY step;

-- name: carry_grants
-- Grants on the table and on its columns.
SELECT statement FROM (
    SELECT 1 AS step, format('REVOKE ALL ON memsync_shadow.conversation_history FROM %%I',
                             pg_get_userbyid(c.relowner)) AS statement
    FROM pg_class c
    WHERE c.oid = to_regclass('conversation_history') AND c.relacl IS NOT NULL
    UNION ALL
    SELECT 2, format('GRANT %%s%%s ON memsync_shadow.conversation_history TO %%s%%s',
                     g.privilege_type, ' (' || quote_ident(g.attname) || ')',
                     CASE g.grantee WHEN 0 THEN 'PUBLIC'
                     ELSE quote_ident(pg_get_userbyid(g.grantee)) END,
                     CASE WHEN g.is_grantable THEN ' WITH GRANT OPTION' END)
    FROM (SELECT NULL::name AS attname, a.* FROM pg_class c, aclexplode(c.relacl) a
          WHERE c.oid = to_regclass('conversation_history')
          UNION ALL
          SELECT t.attname, a.* FROM pg_attribute t, aclexplode(t.attacl) a
          WHERE t.attrelid = to_regclass('conversation_history') AND NOT t.attisdropped) g) found
ORDER BY step;

-- name: carry_indexes
-- The indexes that the copy does not have yet, but those that are memsync's to define.
SELECT i.relname AS name, x.indnatts::int AS columns,
       head || ' ON memsync_shadow.conversation_history '
       || substr(pg_get_indexdef(i.oid),
                 length(head || format(' ON %%I.%%I ', n.nspname, c.relname)) + 1) AS statement
FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid JOIN pg_class c ON c.oid = x.indrelid
JOIN pg_namespace n ON n.oid = c.relnamespace,
LATERAL (SELECT format(CASE WHEN x.indisunique THEN 'CREATE UNIQUE INDEX %%I'
                       ELSE 'CREATE INDEX %%I' END, i.relname) AS head) h
WHERE c.oid = to_regclass('conversation_history') AND i.relname <> ALL(%(but)s)
  AND NOT EXISTS (SELECT FROM pg_class o JOIN pg_namespace s ON s.oid = o.relnamespace
                  WHERE s.nspname = 'memsync_shadow' AND o.relname = i.relname)
ORDER BY x.indisunique DESC, i.relname;

-- name: carry_primary_key
-- The primary key, on its index.
SELECT format('ALTER TABLE memsync_shadow.conversation_history'
              ' ADD CONSTRAINT %%I PRIMARY KEY USING INDEX %%I', k.conname, i.relname) AS statement
FROM pg_constraint k JOIN pg_class i ON i.oid = k.conindid
WHERE k.conrelid = to_regclass('conversation_history') AND k.contype = 'p'
  AND NOT EXISTS (SELECT FROM pg_constraint o
                  WHERE o.conrelid = to_regclass('memsync_shadow.conversation_history')
                    AND o.contype = 'p');

-- name: carry_index_settings
-- Statistics targets of indexed expressions, the index to cluster on, the replica identity.
SELECT format('ALTER INDEX memsync_shadow.%%I ALTER %%s SET STATISTICS %%s', i.relname, a.attnum,
              a.attstattarget) AS statement
FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid JOIN pg_attribute a ON a.attrelid = i.oid
WHERE x.indrelid = to_regclass('conversation_history') AND a.attstattarget >= 0
UNION ALL
SELECT format('ALTER TABLE memsync_shadow.conversation_history CLUSTER ON %%I', i.relname)
FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid
WHERE x.indrelid = to_regclass('conversation_history') AND x.indisclustered
UNION ALL
SELECT 'ALTER TABLE memsync_shadow.conversation_history REPLICA IDENTITY '
       || CASE c.relreplident WHEN 'f' THEN 'FULL' WHEN 'n' THEN 'NOTHING'
          ELSE format('USING INDEX %%I', (SELECT i.relname FROM pg_index x
                      JOIN pg_class i ON i.oid = x.indexrelid
                      WHERE x.indrelid = c.oid AND x.indisreplident)) END
FROM pg_class c WHERE c.oid = to_regclass('conversation_history') AND c.relreplident <> 'd';

-- name: carry_keys
-- Foreign keys of the history that the copy does not have yet; one that refers to itself comes
-- with the exchange.
SELECT k.confrelid::regclass::text AS refers_to,
       format('ALTER TABLE memsync_shadow.conversation_history ADD CONSTRAINT %%I %%s NOT VALID',
              k.conname, pg_get_constraintdef(k.oid)) AS statement
FROM pg_constraint k
WHERE k.conrelid = to_regclass('conversation_history') AND k.contype = 'f'
  AND k.confrelid <> k.conrelid
  AND NOT EXISTS (SELECT FROM pg_constraint o
                  WHERE o.conrelid = to_regclass('memsync_shadow.conversation_history')
                    AND o.conname = k.conname)
ORDER BY k.conname;

-- name: carry_comments
-- Comments on the table, its indexes and its constraints; those on columns come with the table.
SELECT format('COMMENT ON TABLE memsync_shadow.conversation_history IS %%L', e.description)
       AS statement
FROM pg_description e
WHERE e.classoid = 'pg_class'::regclass AND e.objoid = to_regclass('conversation_history')
  AND e.objsubid = 0
UNION ALL
SELECT format('COMMENT ON INDEX memsync_shadow.%%I IS %%L', i.relname, e.description)
FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid
JOIN pg_description e ON e.classoid = 'pg_class'::regclass AND e.objoid = i.oid
WHERE x.indrelid = to_regclass('conversation_history')
  AND EXISTS (SELECT FROM pg_class o JOIN pg_namespace s ON s.oid = o.relnamespace
              WHERE s.nspname = 'memsync_shadow' AND o.relname = i.relname)
UNION ALL
SELECT format('COMMENT ON CONSTRAINT %%I ON memsync_shadow.conversation_history IS %%L', k.conname,
              e.description)
FROM pg_constraint k
JOIN pg_description e ON e.classoid = 'pg_constraint'::regclass AND e.objoid = k.oid
WHERE k.conrelid = to_regclass('conversation_history') AND k.contype IN ('p', 'f')
  AND k.confrelid <> k.conrelid;

-- name: shadow_unvalidated_keys
-- Foreign keys of the copy that are still to be validated.
SELECT format('ALTER TABLE memsync_shadow.conversation_history VALIDATE CONSTRAINT %%I', conname)
       AS statement
FROM pg_constraint
WHERE conrelid = to_regclass('memsync_shadow.conversation_history') AND NOT convalidated;

-- name: carry_options
-- Whether autovacuum looks after the table.
SELECT coalesce((SELECT format('ALTER TABLE conversation_history SET (autovacuum_enabled = %%L)',
                               split_part(option, '=', 2))
                 FROM unnest(c.reloptions) AS option WHERE option LIKE 'autovacuum\_enabled=%%'),
                'ALTER TABLE conversation_history RESET (autovacuum_enabled)') AS statement
FROM pg_class c WHERE c.oid = to_regclass('conversation_history');

-- name: carry_statistics
-- Extended statistics; they are collected again by the next ANALYZE.
SELECT statement FROM (
    SELECT oid, 1 AS step, format('DROP STATISTICS %%s.%%I', stxnamespace::regnamespace, stxname)
           AS statement
    FROM pg_statistic_ext WHERE stxrelid = to_regclass('conversation_history')
    UNION ALL
    SELECT oid, 2, pg_get_statisticsobjdef(oid)
    FROM pg_statistic_ext WHERE stxrelid = to_regclass('conversation_history')
    UNION ALL
    SELECT oid, 3, format('ALTER STATISTICS %%s.%%I OWNER TO %%I', stxnamespace::regnamespace,
                          stxname, pg_get_userbyid(stxowner))
    FROM pg_statistic_ext WHERE stxrelid = to_regclass('conversation_history')
    UNION ALL
    SELECT oid, 4, format('ALTER STATISTICS %%s.%%I SET STATISTICS %%s',
                          stxnamespace::regnamespace, stxname, stxstattarget)
    FROM pg_statistic_ext
    WHERE stxrelid = to_regclass('conversation_history') AND stxstattarget >= 0) found
ORDER BY oid, step;

-- name: carry_triggers
-- Triggers, each enabled or disabled as it was.
SELECT statement FROM (
    SELECT tgname, 1 AS step, pg_get_triggerdef(oid) AS statement
    FROM pg_trigger
    WHERE tgrelid = to_regclass('conversation_history') AND NOT tgisinternal
      AND tgname <> 'memsync_log_change'
    UNION ALL
    SELECT tgname, 2, format('ALTER TABLE conversation_history %%s TRIGGER %%I',
                             CASE tgenabled WHEN 'D' THEN 'DISABLE' WHEN 'R' THEN 'ENABLE REPLICA'
                             ELSE 'ENABLE ALWAYS' END, tgname)
    FROM pg_trigger
    WHERE tgrelid = to_regclass('conversation_history') AND NOT tgisinternal
      AND tgname <> 'memsync_log_change' AND tgenabled <> 'O') found
ORDER BY tgname, step;

-- name: carry_policies
-- Row security and its policies.
SELECT format('CREATE POLICY %%I ON conversation_history AS %%s FOR %%s TO %%s%%s%%s', p.polname,
              CASE WHEN p.polpermissive THEN 'PERMISSIVE' ELSE 'RESTRICTIVE' END,
              CASE p.polcmd WHEN 'r' THEN 'SELECT' WHEN 'a' THEN 'INSERT' WHEN 'w' THEN 'UPDATE'
              WHEN 'd' THEN 'DELETE' ELSE 'ALL' END,
              (SELECT string_agg(CASE r WHEN 0 THEN 'PUBLIC'
                                 ELSE quote_ident(pg_get_userbyid(r)) END, ', ')
               FROM unnest(p.polroles) AS r),
              ' USING (' || pg_get_expr(p.polqual, p.polrelid) || ')',
              ' WITH CHECK (' || pg_get_expr(p.polwithcheck, p.polrelid) || ')') AS statement
FROM pg_policy p WHERE p.polrelid = to_regclass('conversation_history')
UNION ALL
SELECT 'ALTER TABLE conversation_history ENABLE ROW LEVEL SECURITY'
FROM pg_class WHERE oid = to_regclass('conversation_history') AND relrowsecurity
UNION ALL
SELECT 'ALTER TABLE conversation_history FORCE ROW LEVEL SECURITY'
FROM pg_class WHERE oid = to_regclass('conversation_history') AND relforcerowsecurity;

-- name: carry_references
-- Foreign keys that refer to the history, of other tables and its own. Not validated: that reads
-- the other table.
SELECT statement FROM (
    SELECT oid, 1 AS step, format('ALTER TABLE %%s DROP CONSTRAINT %%I', conrelid::regclass,
                                  conname) AS statement
    FROM pg_constraint
    WHERE confrelid = to_regclass('conversation_history') AND contype = 'f'
      AND conrelid <> confrelid
    UNION ALL
    SELECT oid, 2, format('ALTER TABLE %%s ADD CONSTRAINT %%I %%s NOT VALID', conrelid::regclass,
                          conname, pg_get_constraintdef(oid))
    FROM pg_constraint
    WHERE confrelid = to_regclass('conversation_history') AND contype = 'f') found
ORDER BY oid, step;

-- name: carry_publications
-- Publications that name the table, with columns and rows that they choose.
SELECT format('ALTER PUBLICATION %%I ADD TABLE conversation_history%%s%%s', p.pubname,
              (SELECT ' (' || string_agg(quote_ident(a.attname), ', ') || ')'
               FROM unnest(r.prattrs::smallint[]) AS n
               JOIN pg_attribute a ON a.attrelid = r.prrelid AND a.attnum = n),
              ' WHERE (' || pg_get_expr(r.prqual, r.prrelid) || ')') AS statement
FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid
WHERE r.prrelid = to_regclass('conversation_history');

-- name: carry_late_comments
-- Comments on what comes with the exchange.
SELECT format('COMMENT ON TRIGGER %%I ON conversation_history IS %%L', t.tgname, e.description)
       AS statement
FROM pg_trigger t JOIN pg_description e ON e.classoid = 'pg_trigger'::regclass AND e.objoid = t.oid
WHERE t.tgrelid = to_regclass('conversation_history')
UNION ALL
SELECT format('COMMENT ON POLICY %%I ON conversation_history IS %%L', p.polname, e.description)
FROM pg_policy p JOIN pg_description e ON e.classoid = 'pg_policy'::regclass AND e.objoid = p.oid
WHERE p.polrelid = to_regclass('conversation_history')
UNION ALL
SELECT format('COMMENT ON STATISTICS %%s.%%I IS %%L', s.stxnamespace::regnamespace, s.stxname,
              e.description)
FROM pg_statistic_ext s
JOIN pg_description e ON e.classoid = 'pg_statistic_ext'::regclass AND e.objoid = s.oid
WHERE s.stxrelid = to_regclass('conversation_history')
UNION ALL
SELECT format('COMMENT ON CONSTRAINT %%I ON %%s IS %%L', k.conname, k.conrelid::regclass,
              e.description)
FROM pg_constraint k
JOIN pg_description e ON e.classoid = 'pg_constraint'::regclass AND e.objoid = k.oid
WHERE k.confrelid = to_regclass('conversation_history') AND k.contype = 'f';

-- name: halve_lock_timeout
-- Queues for the next lock half as long, in this transaction: waits for several add up.
SELECT set_config('lock_timeout', greatest(setting::int / 2, 1)::text, true)
FROM pg_settings WHERE name = 'lock_timeout';

-- name: has_extended_statistics
-- Whether there are statistics that the exchange left empty.
SELECT EXISTS (SELECT FROM pg_statistic_ext
               WHERE stxrelid = to_regclass('conversation_history')) AS found;

-- name: analyze_after_cutover
-- Collects them.
ANALYZE conversation_history;

-- name: referring_tables
-- Other tables whose foreign keys refer to the history, as statements that lock them.
SELECT DISTINCT format('LOCK TABLE %%s IN ACCESS EXCLUSIVE MODE', conrelid::regclass) AS statement
FROM pg_constraint
WHERE confrelid = to_regclass('conversation_history') AND contype = 'f' AND conrelid <> confrelid;

-- name: references_to_validate
-- Foreign keys to the history that the exchange left NOT VALID.
SELECT format('ALTER TABLE %%s VALIDATE CONSTRAINT %%I', conrelid::regclass, conname) AS statement
FROM pg_constraint
WHERE confrelid = to_regclass('conversation_history') AND contype = 'f' AND NOT convalidated;

-- name: keys_of
-- Foreign keys of a copy or of a retired history, as statements that drop them.
SELECT confrelid::regclass::text AS refers_to,
       format('ALTER TABLE %%s DROP CONSTRAINT %%I', conrelid::regclass, conname) AS statement
FROM pg_constraint
WHERE conrelid = to_regclass(%(relation)s) AND contype = 'f' AND conrelid <> confrelid;

-- name: start_shadow
-- Opens the checkpoint of a copy, in the transaction that made the trigger: what is written from
-- here on is in the log of touched rows.
INSERT INTO memsync_shadow.checkpoint (source, filenode, definition, next_block, end_block)
SELECT c.oid, pg_relation_filenode(c.oid), %(definition)s, 0,
       pg_relation_size(c.oid) / current_setting('block_size')::int + 1
FROM pg_class c WHERE c.oid = to_regclass('conversation_history');

-- name: shadow_checkpoint
-- The checkpoint, and whether the history is still the one that the copy began with: not truncated,
-- not rewritten, its trigger in place.
SELECT p.next_block, p.end_block, p.definition,
       p.source = to_regclass('conversation_history')
       AND p.filenode IS NOT DISTINCT FROM pg_relation_filenode(p.source)
       AND EXISTS (SELECT FROM pg_trigger t
                   WHERE t.tgrelid = p.source AND t.tgname = 'memsync_log_change'
                     AND t.tgenabled = 'A') AS stands
FROM memsync_shadow.checkpoint p;

-- name: save_shadow
-- Moves the checkpoint; runs in the slice's own transaction.
-- lint: allow NO-WHERE the table has one row
UPDATE memsync_shadow.checkpoint SET next_block = %(next_block)s;

-- fragment: shadow_rows
-- Where a copied row's persona is decided. Joined, not asked row by row: a third of the time.
FROM conversation_history h
LEFT JOIN memsync.persona_map m ON m.user_id = h.user_id AND m.personality_id = h.personality_id
LEFT JOIN ({archived_personas}) k ON k.history_id = h.id

-- fragment: of_rows_unchanged
-- One range of blocks, without rows that were touched since the copy began: those come by the log,
-- and so no row comes twice.
WHERE h.ctid >= %(start)s::tid AND h.ctid < %(stop)s::tid
  AND NOT EXISTS (SELECT FROM memsync_shadow.change_log t WHERE t.id = h.id)

-- fragment: of_rows_changed
-- Rows by their ids.
WHERE h.id = ANY(%(ids)s)

-- name: take_changes
-- Takes the oldest entries from the log of touched rows. One that comes later for the same row
-- copies it once more: no harm.
DELETE FROM memsync_shadow.change_log
WHERE n = ANY(ARRAY(SELECT n FROM memsync_shadow.change_log ORDER BY n LIMIT %(limit)s))
RETURNING id;

-- name: changes_left
-- Whether the log of touched rows has entries; by its key, for it may be long and empty.
SELECT min(n) IS NOT NULL AS found FROM memsync_shadow.change_log;

-- name: vacuum_change_log
-- Clears what was taken from the log out of its key, before the exchange looks there.
VACUUM (TRUNCATE false) memsync_shadow.change_log;

-- name: remove_from_shadow
-- Removes rows from the copy.
DELETE FROM memsync_shadow.conversation_history WHERE id = ANY(%(ids)s);

-- name: vacuum_shadow
-- Marks the copy's pages as visible to all, so that scans of an index alone are possible. The sooner
-- the cheaper: later it would have to read each page again, and log it whole.
VACUUM (TRUNCATE false) memsync_shadow.conversation_history;

-- name: shadow_hidden
-- How many pages of the copy VACUUM could not mark.
SELECT (relpages - relallvisible)::bigint AS blocks FROM pg_class
WHERE oid = to_regclass('memsync_shadow.conversation_history');

-- name: analyze_shadow
-- A table without statistics is planned badly.
ANALYZE memsync_shadow.conversation_history;

-- name: moment
-- Now, and the number of this transaction: what is committed by then, later snapshots see.
SELECT clock_timestamp() AS at, pg_current_xact_id()::xid::text AS xact;

-- name: older_snapshots
-- Sessions that may still read as of a time before the given moment. To them the copy's rows would
-- not be there. A transaction of READ COMMITTED is none between its statements.
SELECT a.pid, coalesce(a.state, 'of another role') AS state, left(a.query, 200) AS query,
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
-- The schema to which the history retires.
CREATE SCHEMA IF NOT EXISTS memsync_retired;

-- name: create_shadow_checkpoint
-- How far the copying came, and which table it was made from.
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
-- Serves the question whether a row was written: after a pause of a night each slice meets a long
-- log.
CREATE INDEX change_log_id_idx ON memsync_shadow.change_log (id);

-- name: define_log_change
-- Logs the id of a row that is written, and the old one too where it changes. With its owner's
-- rights, because clients have none in memsync's schemas.
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
-- Firing a trigger asks for no right; hanging the function on a table of one's own does.
REVOKE ALL ON FUNCTION memsync_shadow.log_change() FROM PUBLIC;

-- name: create_log_change_trigger
-- Logs every write of the history.
CREATE TRIGGER memsync_log_change AFTER INSERT OR UPDATE OR DELETE ON conversation_history
    FOR EACH ROW EXECUTE FUNCTION memsync_shadow.log_change();

-- name: always_log_changes
-- A session that replays changes of elsewhere fires no other triggers.
ALTER TABLE conversation_history ENABLE ALWAYS TRIGGER memsync_log_change;

-- name: lock_shadow
-- Waits for whoever still works on the shadow table. Nobody but memsync writes it, but for deletions
-- by its keys.
LOCK TABLE memsync_shadow.conversation_history IN SHARE ROW EXCLUSIVE MODE;

-- name: lock_history
-- Keeps everybody out for the cut-over.
-- lint: allow STRONG-LOCK half of lock_timeout at most: the cut-over needs it
LOCK TABLE conversation_history IN ACCESS EXCLUSIVE MODE;

-- name: drop_log_change_trigger
-- Ends the logging.
DROP TRIGGER IF EXISTS memsync_log_change ON conversation_history;

-- name: disable_user_triggers
-- A user who is deleted before the retired history is dropped is still deleted there as well.
ALTER TABLE conversation_history DISABLE TRIGGER USER;

-- name: retire_history
-- The history leaves its place.
ALTER TABLE conversation_history SET SCHEMA memsync_retired;

-- name: place_shadow
-- The shadow table takes the place of the history.
ALTER TABLE memsync_shadow.conversation_history SET SCHEMA {schema};

-- name: drop_shadow_tables
-- Drops the shadow table and the retired history, whichever is there.
DROP TABLE IF EXISTS memsync_shadow.conversation_history, memsync_retired.conversation_history;

-- name: drop_shadow_logs
-- Drops the change log and the checkpoint.
DROP TABLE IF EXISTS memsync_shadow.change_log, memsync_shadow.checkpoint;

-- name: drop_log_change
-- Drops the trigger's function.
DROP FUNCTION IF EXISTS memsync_shadow.log_change();

-- name: drop_shadow_schemas
-- Drops both schemas.
DROP SCHEMA IF EXISTS memsync_shadow, memsync_retired;

-- name: insert_into_shadow
-- Writes rows of the history into the shadow table: {values} for {columns}, of the rows that {of_rows}
-- names.
INSERT INTO memsync_shadow.conversation_history ({columns})
SELECT {values} {shadow_rows} {of_rows};
