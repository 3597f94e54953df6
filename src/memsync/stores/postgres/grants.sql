-- Owners and grants of tables.

-- name: current_role
-- The role that memsync acts as.
SELECT current_user::text AS name;

-- name: table_grants
-- The owner of a table and its grants to other roles; a grant to PUBLIC has no grantee. If a table
-- replaces the column `replaced`, UPDATE of it becomes INSERT, UPDATE and DELETE.
SELECT pg_get_userbyid(c.relowner) AS owner,
       pg_get_userbyid(nullif(a.grantee, 0)) AS grantee, m.privilege,
       bool_or(a.is_grantable) AS is_grantable
FROM pg_class c
LEFT JOIN pg_attribute k ON k.attrelid = c.oid AND k.attname = %(replaced)s AND k.attnum > 0
LEFT JOIN LATERAL (SELECT * FROM aclexplode(c.relacl) UNION SELECT * FROM aclexplode(k.attacl)) a
       ON a.grantee <> c.relowner
LEFT JOIN LATERAL unnest(CASE WHEN k.attnum IS NOT NULL AND a.privilege_type = 'UPDATE'
                              THEN ARRAY['INSERT', 'UPDATE', 'DELETE']
                              ELSE ARRAY[a.privilege_type] END) AS m(privilege) ON true
WHERE c.oid = to_regclass(%(relation)s)
GROUP BY c.relowner, a.grantee, m.privilege
ORDER BY grantee, privilege;

-- name: column_grants
-- The grants on single columns of a table.
SELECT k.attname AS column, pg_get_userbyid(nullif(a.grantee, 0)) AS grantee,
       a.privilege_type AS privilege, a.is_grantable
FROM pg_attribute k CROSS JOIN LATERAL aclexplode(k.attacl) a
WHERE k.attrelid = to_regclass(%(relation)s) AND k.attnum > 0 AND NOT k.attisdropped
ORDER BY k.attnum, grantee, privilege;
