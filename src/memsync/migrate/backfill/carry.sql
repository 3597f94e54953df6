-- Queries that carry the definition of the history over to the shadow table. Each returns
-- statements, with names quoted by the server. They name the shadow table, or the history where
-- they run after the cut-over.

-- name: grant_shadow_schemas
-- Lets the history's owner use memsync's two schemas, because Postgres checks foreign keys as the
-- owner.
SELECT format('GRANT USAGE, CREATE ON SCHEMA memsync_shadow, memsync_retired TO %%I',
              pg_get_userbyid(relowner)) AS statement
FROM pg_class WHERE oid = to_regclass('conversation_history');

-- name: carry_table
-- Creates the shadow table: columns, defaults, checks, storage, options. Autovacuum would delay the
-- index builds.
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
-- Revokes the grants that ALTER DEFAULT PRIVILEGES gave the shadow table.
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
-- The indexes that the shadow table does not have yet, except those that memsync defines itself.
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
-- The primary key, on the index that is built for it.
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
-- Foreign keys of the history that the shadow table does not have yet. The cut-over creates the
-- keys that refer to the history itself.
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
-- Comments on the table, its indexes and its constraints. Comments on columns came with the table.
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
-- Foreign keys of the shadow table that are still to be validated.
SELECT format('ALTER TABLE memsync_shadow.conversation_history VALIDATE CONSTRAINT %%I', conname)
       AS statement
FROM pg_constraint
WHERE conrelid = to_regclass('memsync_shadow.conversation_history') AND NOT convalidated;

-- name: carry_options
-- Sets autovacuum_enabled to what it was on the history.
SELECT coalesce((SELECT format('ALTER TABLE conversation_history SET (autovacuum_enabled = %%L)',
                               split_part(option, '=', 2))
                 FROM unnest(c.reloptions) AS option WHERE option LIKE 'autovacuum\_enabled=%%'),
                'ALTER TABLE conversation_history RESET (autovacuum_enabled)') AS statement
FROM pg_class c WHERE c.oid = to_regclass('conversation_history');

-- name: carry_statistics
-- Extended statistics, dropped from the history and created again. The next ANALYZE fills them.
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
-- Foreign keys that refer to the history, its own included. NOT VALID, because a validation would
-- read the other table under the lock.
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
-- Publications that name the table, with their column lists and row filters.
SELECT format('ALTER PUBLICATION %%I ADD TABLE conversation_history%%s%%s', p.pubname,
              (SELECT ' (' || string_agg(quote_ident(a.attname), ', ') || ')'
               FROM unnest(r.prattrs::smallint[]) AS n
               JOIN pg_attribute a ON a.attrelid = r.prrelid AND a.attnum = n),
              ' WHERE (' || pg_get_expr(r.prqual, r.prrelid) || ')') AS statement
FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid
WHERE r.prrelid = to_regclass('conversation_history');

-- name: carry_late_comments
-- Comments on the objects that the cut-over creates.
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

-- name: referring_tables
-- Other tables whose foreign keys refer to the history, as statements that lock them.
SELECT DISTINCT format('LOCK TABLE %%s IN ACCESS EXCLUSIVE MODE', conrelid::regclass) AS statement
FROM pg_constraint
WHERE confrelid = to_regclass('conversation_history') AND contype = 'f' AND conrelid <> confrelid;

-- name: references_to_validate
-- Foreign keys to the history that the cut-over left NOT VALID.
SELECT format('ALTER TABLE %%s VALIDATE CONSTRAINT %%I', conrelid::regclass, conname) AS statement
FROM pg_constraint
WHERE confrelid = to_regclass('conversation_history') AND contype = 'f' AND NOT convalidated;

-- name: keys_of
-- Foreign keys of the shadow table or of the retired history, as statements that drop them.
SELECT confrelid::regclass::text AS refers_to,
       format('ALTER TABLE %%s DROP CONSTRAINT %%I', conrelid::regclass, conname) AS statement
FROM pg_constraint
WHERE conrelid = to_regclass(%(relation)s) AND contype = 'f' AND conrelid <> confrelid;
