-- The change of layout that was begun and did not end. See halfway.py.

-- name: layout_under_way
-- The change that is under way; none in a schema of a build that did not note it.
SELECT to_jsonb(l) ->> 'under_way' AS under_way FROM memsync.layout l;

-- name: begin_layout_change
-- Notes that a change of the recorded layout begins.
UPDATE memsync.layout SET under_way = %(change)s WHERE singleton;

-- name: end_layout_change
-- Forgets a change that ended, or that was given up.
UPDATE memsync.layout SET under_way = NULL WHERE under_way = %(change)s;
