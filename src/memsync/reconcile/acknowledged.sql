-- The findings that an operator has acknowledged. See acknowledged.py.

-- fragment: acknowledgement
-- What the baseline says of one subject.
a.id, a.code, a.store, a.key, encode(a.state, 'hex') AS state, a.reason, a.who, a.acknowledged_at;

-- name: acknowledge_findings
-- Acknowledges findings in the state that they have; one of another state is acknowledged anew.
INSERT INTO memsync.acknowledged (code, store, key, state, reason)
SELECT given.code, given.store, given.key, given.state, %(reason)s::text
FROM unnest(%(codes)s::text[], %(stores)s::text[], %(keys)s::text[], %(states)s::bytea[])
    AS given(code, store, key, state)
ON CONFLICT (code, store, key) DO UPDATE
SET state = excluded.state, reason = excluded.reason, who = session_user,
    acknowledged_at = clock_timestamp();

-- name: acknowledgements_of
-- What the baseline says of these subjects.
SELECT {acknowledgement}
FROM memsync.acknowledged a
JOIN unnest(%(codes)s::text[], %(stores)s::text[], %(keys)s::text[]) AS asked(code, store, key)
    USING (code, store, key);

-- name: acknowledgements_after
-- A page of the baseline, of all codes or of some, in the order of their ids.
SELECT {acknowledgement}
FROM memsync.acknowledged a
WHERE a.id > %(after)s AND (%(codes)s::text[] IS NULL OR a.code = ANY(%(codes)s::text[]))
ORDER BY a.id LIMIT %(limit)s;

-- name: acknowledgements_by_id
-- Those of these ids.
SELECT {acknowledgement} FROM memsync.acknowledged a WHERE a.id = ANY(%(ids)s) ORDER BY a.id;

-- name: acknowledgement_counts
-- How many acknowledgements there are of each code.
SELECT code, count(*) AS findings FROM memsync.acknowledged GROUP BY code ORDER BY code;

-- name: drop_acknowledgements
-- Drops acknowledgements, unless somebody has acknowledged another state meanwhile; their codes.
DELETE FROM memsync.acknowledged a
USING unnest(%(ids)s::bigint[], %(states)s::bytea[]) AS seen(id, state)
WHERE a.id = seen.id AND a.state = seen.state
RETURNING a.code;
