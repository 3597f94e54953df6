-- The record of audits. See recorded.py.

-- name: record_rights
-- Whether the role may read the record, and add to it.
SELECT has_table_privilege('memsync.audits', 'SELECT') AS may_read,
       has_table_privilege('memsync.audits', 'SELECT')
       AND has_table_privilege('memsync.audits', 'INSERT')
       AND has_table_privilege('memsync.audits', 'DELETE') AS may_write;

-- name: record_audit
-- Adds an audit to the record.
INSERT INTO memsync.audits (begun_at, seconds, layout, complete, counts, acknowledged, settling,
                            rows_checked, points_checked, memsync_version)
VALUES (%(begun_at)s, %(seconds)s, %(layout)s, %(complete)s, %(counts)s::jsonb, %(acknowledged)s,
        %(settling)s, %(rows)s, %(points)s, %(memsync_version)s);

-- name: trim_record
-- Forgets all audits but the newest.
DELETE FROM memsync.audits
WHERE id <= (SELECT id FROM memsync.audits ORDER BY id DESC OFFSET %(kept)s LIMIT 1);

-- name: recorded_audits
-- The newest audits of the record, the newest first.
SELECT begun_at, seconds, layout, complete, counts, acknowledged, settling, memsync_version
FROM memsync.audits ORDER BY id DESC LIMIT %(limit)s;
