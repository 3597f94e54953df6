-- The outbox: memories that must be written to Qdrant.

-- name: enqueue
-- Adds an entry for each of the anchors, in the caller's transaction.
INSERT INTO memsync.outbox (point_id) SELECT unnest(%(ids)s::uuid[]);

-- name: due_attempts
-- The numbers of attempts of the entries that are due, for a run that began at `since`.
SELECT DISTINCT attempts FROM memsync.outbox
WHERE NOT dead
  AND next_attempt_at <= CASE attempts WHEN 0 THEN clock_timestamp() ELSE %(since)s END
ORDER BY attempts;

-- name: claim
-- Counts an attempt of the next entries that are due, for the one relay that holds the relay's
-- lock. It is counted before the work, because work that ends the process must count as well. An
-- entry that failed since the run began waits for the next run.
UPDATE memsync.outbox
SET attempts = attempts + 1, dead = attempts + 1 >= %(attempts_max)s, last_error = %(unfinished)s
WHERE id IN (
    SELECT id FROM memsync.outbox
    WHERE NOT dead AND attempts = %(attempts)s AND id > %(after)s
      AND next_attempt_at <= CASE attempts WHEN 0 THEN clock_timestamp() ELSE %(since)s END
    ORDER BY id LIMIT %(limit)s)
RETURNING id, point_id;

-- name: settle_entries
-- Removes entries whose work is done.
DELETE FROM memsync.outbox WHERE id = ANY(%(ids)s);

-- name: refuse_entries
-- Keeps the error of entries whose attempt failed. The delay until the next one grows each time.
UPDATE memsync.outbox
SET last_error = %(error)s,
    next_attempt_at = clock_timestamp()
        + make_interval(secs => least(300, power(2, attempts - 1)) * (0.5 + random() / 2))
WHERE id = ANY(%(ids)s);

-- name: give_back
-- Takes back the attempt of entries that could not be tried; they stay due. Somebody may have revived
-- one meanwhile.
UPDATE memsync.outbox SET attempts = greatest(attempts - 1, 0), dead = false, last_error = %(error)s
WHERE id = ANY(%(ids)s);

-- name: hold_entries
-- Takes back the attempts of entries that wait for something to be mended; they are due again later.
-- No text of theirs is at fault, whatever ended an earlier process.
UPDATE memsync.outbox
SET attempts = 0, dead = false, last_error = %(error)s,
    next_attempt_at = clock_timestamp() + make_interval(secs => %(wait_s)s)
WHERE id = ANY(%(ids)s);

-- fragment: is_held
-- An entry that waits for something to be mended.
NOT dead AND attempts = 0 AND last_error IS NOT NULL AND next_attempt_at > clock_timestamp();

-- name: release_entries
-- Makes held entries due.
UPDATE memsync.outbox SET next_attempt_at = clock_timestamp() WHERE {is_held};

-- name: revive_entries
-- Makes dead entries due again.
UPDATE memsync.outbox SET dead = false, attempts = 0, next_attempt_at = clock_timestamp()
WHERE dead;

-- name: server_clock
-- The time of the server.
SELECT clock_timestamp() AS now;

-- name: outbox_status
-- How many entries wait, how many are dead, how many are held, the age of the oldest that waits, in
-- seconds, and the commonest error of the dead and of the held.
SELECT count(*) FILTER (WHERE NOT dead) AS pending, count(*) FILTER (WHERE dead) AS dead,
       count(*) FILTER (WHERE held) AS held,
       mode() WITHIN GROUP (ORDER BY last_error) FILTER (WHERE dead) AS dead_error,
       mode() WITHIN GROUP (ORDER BY last_error) FILTER (WHERE held) AS held_error,
       coalesce(extract(epoch FROM clock_timestamp()
                - min(enqueued_at) FILTER (WHERE NOT dead)), 0)::float AS oldest_s
FROM (SELECT dead, last_error, enqueued_at, ({is_held}) AS held FROM memsync.outbox) entries;

-- name: outbox_last
-- The id of the newest entry.
SELECT coalesce(max(id), 0) AS id FROM memsync.outbox;

-- name: outbox_left
-- How many of the entries up to the id `last` wait, how many are dead, and the commonest error of
-- each.
SELECT count(*) FILTER (WHERE NOT dead) AS pending, count(*) FILTER (WHERE dead) AS dead,
       mode() WITHIN GROUP (ORDER BY last_error) FILTER (WHERE NOT dead) AS pending_error,
       mode() WITHIN GROUP (ORDER BY last_error) FILTER (WHERE dead) AS dead_error
FROM memsync.outbox WHERE id <= %(last)s;

-- name: outbox_late
-- The first entries that are dead, and the first others that are older than the alarm age; and how
-- many there are of either kind.
SELECT id, point_id, dead, attempts, last_error, total, age_s
FROM (SELECT id, point_id, dead, attempts, last_error, count(*) OVER (PARTITION BY dead) AS total,
             row_number() OVER (PARTITION BY dead ORDER BY id) AS place,
             extract(epoch FROM clock_timestamp() - enqueued_at)::float AS age_s
      FROM memsync.outbox
      WHERE dead OR enqueued_at < clock_timestamp() - make_interval(secs => %(alarm_s)s)) late
WHERE place <= %(limit)s ORDER BY id;

-- name: outbox_pending_of
-- Which of the given anchors have an entry that is neither dead nor older than the alarm age.
SELECT DISTINCT point_id FROM memsync.outbox
WHERE point_id = ANY(%(ids)s) AND NOT dead
  AND enqueued_at >= clock_timestamp() - make_interval(secs => %(alarm_s)s);
