-- Each query returns the reasons why a shadow table cannot replace the history, and no row if it
-- can.

-- name: obstacle_kind
-- The history is a table of another kind than the shadow table would be.
SELECT reason FROM pg_class c, LATERAL (VALUES
    (c.relkind <> 'r', 'it is not an ordinary table'),
    (c.relispartition, 'it is a partition'),
    (c.relpersistence <> 'p', 'it is unlogged or temporary'),
    (c.reloftype <> 0, 'it is a typed table'),
    ((SELECT amname FROM pg_am WHERE oid = c.relam) <> 'heap', 'its access method is not heap'),
    (EXISTS (SELECT FROM pg_inherits WHERE c.oid IN (inhrelid, inhparent)),
     'it has parent or child tables'),
    (EXISTS (SELECT FROM pg_class t LEFT JOIN pg_index x ON x.indexrelid = t.oid
             WHERE (t.oid = c.oid OR x.indrelid = c.oid) AND t.reltablespace <> 0),
     'it or one of its indexes is in another tablespace'),
    (EXISTS (SELECT FROM pg_rewrite WHERE ev_class = c.oid), 'it has rules')
    ) AS given (holds, reason)
WHERE c.oid = to_regclass('conversation_history') AND holds;

-- name: obstacle_columns
-- Columns whose values the database generates, and an id that the change log cannot hold.
SELECT format('column %%I is generated or an identity', attname) AS reason FROM pg_attribute
WHERE attrelid = to_regclass('conversation_history') AND attnum > 0 AND NOT attisdropped
  AND (attgenerated <> '' OR attidentity <> '')
UNION ALL
SELECT 'its primary key is not (id uuid)'
WHERE NOT EXISTS (
    SELECT FROM pg_constraint k
    JOIN pg_attribute a ON a.attrelid = k.conrelid AND k.conkey = ARRAY[a.attnum]
    WHERE k.conrelid = to_regclass('conversation_history') AND k.contype = 'p'
      AND NOT k.condeferrable AND a.attname = 'id' AND a.atttypid = 'uuid'::regtype);

-- name: obstacle_constraints
-- Constraints and indexes that the shadow table would change, or that a replay of single rows could
-- violate.
SELECT format('constraint %%I of %%s is NOT VALID or not enforced', conname, conrelid::regclass)
       AS reason
FROM pg_constraint
WHERE to_regclass('conversation_history') IN (conrelid, confrelid) AND NOT convalidated
UNION ALL
SELECT format('constraint %%I is an exclusion constraint', conname)
FROM pg_constraint
WHERE conrelid = to_regclass('conversation_history') AND contype = 'x'
UNION ALL
SELECT format('index %%I is unique besides the primary key', i.relname)
FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid
WHERE x.indrelid = to_regclass('conversation_history') AND x.indisunique AND NOT x.indisprimary
UNION ALL
SELECT format('index %%I is INVALID', i.relname)
FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid
WHERE x.indrelid = to_regclass('conversation_history') AND NOT (x.indisvalid AND x.indisready)
  AND i.relname <> ALL(%(but)s)
UNION ALL
SELECT format('foreign key %%I of %%s belongs to a partitioned table', conname, conrelid::regclass)
FROM pg_constraint
WHERE confrelid = to_regclass('conversation_history') AND contype = 'f'
  AND (conparentid <> 0 OR (SELECT relkind FROM pg_class WHERE oid = conrelid) <> 'r')
UNION ALL
SELECT format('the triggers of constraint %%I are disabled', k.conname)
FROM pg_constraint k
WHERE to_regclass('conversation_history') IN (k.conrelid, k.confrelid) AND k.contype = 'f'
  AND EXISTS (SELECT FROM pg_trigger t WHERE t.tgconstraint = k.oid AND t.tgenabled <> 'O');

-- name: obstacle_dependents
-- Objects that use the table or its row type and would stay with the retired table: views,
-- functions, columns, sequences, policies of other tables.
SELECT DISTINCT 'it is used by ' || pg_describe_object(d.classid, d.objid, 0) AS reason
FROM pg_class c JOIN pg_type r ON r.oid = c.reltype
JOIN pg_depend d ON d.refclassid = 'pg_class'::regclass AND d.refobjid = c.oid
                 OR d.refclassid = 'pg_type'::regclass AND d.refobjid IN (r.oid, r.typarray)
WHERE c.oid = to_regclass('conversation_history')
  AND NOT (d.classid = 'pg_class'::regclass
           AND (SELECT relkind FROM pg_class WHERE oid = d.objid) IN ('i', 't'))
  AND NOT (d.classid = 'pg_type'::regclass AND d.objid IN (r.oid, r.typarray))
  AND NOT EXISTS (
      SELECT FROM pg_attrdef WHERE d.classid = 'pg_attrdef'::regclass AND oid = d.objid
                               AND adrelid = c.oid
      UNION ALL
      SELECT FROM pg_constraint WHERE d.classid = 'pg_constraint'::regclass AND oid = d.objid
                                  AND (conrelid = c.oid OR contype = 'f' AND confrelid = c.oid)
      UNION ALL
      SELECT FROM pg_trigger WHERE d.classid = 'pg_trigger'::regclass AND oid = d.objid
                               AND tgrelid = c.oid
      UNION ALL
      SELECT FROM pg_policy WHERE d.classid = 'pg_policy'::regclass AND oid = d.objid
                              AND polrelid = c.oid
      UNION ALL
      SELECT FROM pg_statistic_ext WHERE d.classid = 'pg_statistic_ext'::regclass
                                     AND oid = d.objid AND stxrelid = c.oid
      UNION ALL
      SELECT FROM pg_publication_rel WHERE d.classid = 'pg_publication_rel'::regclass
                                       AND oid = d.objid AND prrelid = c.oid);

-- name: obstacle_extensions
-- Extensions and security labels that are attached to the table, its indexes or its triggers.
SELECT 'it is bound to ' || pg_describe_object(d.refclassid, d.refobjid, 0) AS reason
FROM pg_depend d
WHERE d.refclassid = 'pg_extension'::regclass AND d.deptype IN ('e', 'x')
  AND (d.classid = 'pg_class'::regclass
       AND (d.objid = to_regclass('conversation_history')
            OR d.objid IN (SELECT indexrelid FROM pg_index
                           WHERE indrelid = to_regclass('conversation_history')))
       OR d.classid = 'pg_trigger'::regclass
       AND d.objid IN (SELECT oid FROM pg_trigger
                       WHERE tgrelid = to_regclass('conversation_history')))
UNION ALL
SELECT 'it has security labels'
WHERE EXISTS (SELECT FROM pg_seclabel WHERE classoid = 'pg_class'::regclass
                                        AND objoid = to_regclass('conversation_history'));

-- name: obstacle_replication
-- Logical replication: subscribers learn of personas only from rows that are updated.
SELECT format('logical replication slot %%I reads this database', slot_name) AS reason
FROM pg_replication_slots WHERE slot_type = 'logical' AND database = current_database()
UNION ALL
SELECT format('publication %%I is FOR ALL TABLES', pubname) FROM pg_publication WHERE puballtables
UNION ALL
SELECT 'a subscription writes to it'
WHERE EXISTS (SELECT FROM pg_subscription_rel WHERE srrelid = to_regclass('conversation_history'));

-- name: obstacle_event_triggers
-- Event triggers, because they may do anything when tables are created or dropped.
SELECT format('event trigger %%I', evtname) AS reason FROM pg_event_trigger
WHERE evtenabled <> 'D' AND evtevent <> 'login';

-- name: obstacle_privileges
-- Privileges that this role lacks.
SELECT reason FROM pg_class c, LATERAL (VALUES
    (NOT pg_has_role(c.relowner, 'USAGE'), format('this role is not its owner, %%I',
                                                  pg_get_userbyid(c.relowner))),
    (row_security_active(c.oid), 'row security hides rows from this role'),
    (NOT has_schema_privilege(c.relnamespace, 'CREATE'),
     format('this role may not create tables in schema %%s', c.relnamespace::regnamespace)),
    (EXISTS (SELECT FROM aclexplode(c.relacl) WHERE grantor <> c.relowner)
     OR EXISTS (SELECT FROM pg_attribute t, aclexplode(t.attacl) a
                WHERE t.attrelid = c.oid AND a.grantor <> c.relowner),
     'roles other than its owner granted privileges on it')
    ) AS given (holds, reason)
WHERE c.oid = to_regclass('conversation_history') AND holds
UNION ALL
SELECT format('this role does not own %%s, whose foreign key %%I refers to it', k.conrelid::regclass,
              k.conname)
FROM pg_constraint k JOIN pg_class r ON r.oid = k.conrelid
WHERE k.confrelid = to_regclass('conversation_history') AND k.contype = 'f'
  AND NOT pg_has_role(r.relowner, 'USAGE')
UNION ALL
SELECT format('this role may not refer to %%s, as foreign key %%I does', k.confrelid::regclass,
              k.conname)
FROM pg_constraint k
WHERE k.conrelid = to_regclass('conversation_history') AND k.contype = 'f'
  AND NOT has_table_privilege(k.confrelid, 'REFERENCES')
UNION ALL
SELECT format('this role does not own publication %%I, which names it', p.pubname)
FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid
WHERE r.prrelid = to_regclass('conversation_history') AND NOT pg_has_role(p.pubowner, 'USAGE');
