-- The outbox: memories that must be written to Qdrant.

-- name: enqueue
-- Adds an entry for each of the anchors, in the caller's transaction.
INSERT INTO memsync.outbox (point_id) SELECT unnest(%(ids)s::uuid[]);

-- name: claim
-- The oldest entries that are due, for the one relay that holds the relay's lock.
SELECT id, point_id, attempts FROM memsync.outbox
WHERE NOT dead AND next_attempt_at <= clock_timestamp()
ORDER BY id LIMIT %(limit)s;

-- name: settle_entries
-- Removes entries whose work is done.
DELETE FROM memsync.outbox WHERE id = ANY(%(ids)s);

-- name: defer_entries
-- Puts entries back after a failure, with a growing delay; after the last attempt they are dead.
UPDATE memsync.outbox
SET attempts = attempts + 1, last_error = %(error)s,
    dead = attempts + 1 >= %(attempts_max)s,
    next_attempt_at = clock_timestamp()
        + make_interval(secs => least(300, power(2, attempts)) * (0.5 + random() / 2))
WHERE id = ANY(%(ids)s);

-- name: revive_entries
-- Makes dead entries due again.
UPDATE memsync.outbox SET dead = false, attempts = 0, next_attempt_at = clock_timestamp()
WHERE dead;

-- name: outbox_status
-- How many entries wait, how many are dead, and the age of the oldest that waits, in seconds.
SELECT count(*) FILTER (WHERE NOT dead) AS pending, count(*) FILTER (WHERE dead) AS dead,
       coalesce(extract(epoch FROM clock_timestamp()
                - min(enqueued_at) FILTER (WHERE NOT dead)), 0)::float AS oldest_s
FROM memsync.outbox;

-- name: outbox_late
-- The first entries that are dead or older than the alarm age, and how many there are.
SELECT id, point_id, dead, attempts, last_error, count(*) OVER () AS total,
       extract(epoch FROM clock_timestamp() - enqueued_at)::float AS age_s
FROM memsync.outbox
WHERE dead OR enqueued_at < clock_timestamp() - make_interval(secs => %(alarm_s)s)
ORDER BY id LIMIT %(limit)s;

-- name: outbox_pending_of
-- Which of the given anchors have an entry that is not dead.
SELECT DISTINCT point_id FROM memsync.outbox WHERE point_id = ANY(%(ids)s) AND NOT dead;
