-- The clients that still write user_id: sessions whose statement names it, the roles that may write
-- it, and the objects of the schema that use it. Run this before contract. Reads only.
\set ON_ERROR_STOP on
SELECT pid, usename, application_name, client_addr, state, state_change, left(query, 80) AS query
FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid()
  AND query ~* '\mconversation_history\M' AND query ~* '\muser_id\M'
ORDER BY state_change DESC;
SELECT CASE g.grantee WHEN 0 THEN 'PUBLIC' ELSE g.grantee::regrole::text END AS role,
       string_agg(DISTINCT g.privilege_type, ', ') AS may
FROM pg_class c
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'user_id'
CROSS JOIN LATERAL (SELECT * FROM aclexplode(coalesce(c.relacl, acldefault('r', c.relowner)))
                    UNION ALL SELECT * FROM aclexplode(a.attacl)) g
WHERE c.oid = to_regclass('conversation_history')
  AND g.privilege_type IN ('INSERT', 'UPDATE')
GROUP BY 1 ORDER BY 1;
SELECT DISTINCT coalesce('view ' || r.ev_class::regclass::text,
                         pg_describe_object(d.classid, d.objid, d.objsubid)) AS uses_user_id
FROM pg_depend d
JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
LEFT JOIN pg_rewrite r ON d.classid = 'pg_rewrite'::regclass AND r.oid = d.objid
WHERE d.refclassid = 'pg_class'::regclass AND d.refobjid = to_regclass('conversation_history')
  AND a.attname = 'user_id'
ORDER BY 1;
