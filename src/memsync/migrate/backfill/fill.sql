-- The fill in place, forward and back, its checkpoint, the archive.

-- name: fill_state
-- The checkpoint of a fill; no row before it started.
SELECT next_block, end_block, rows_total, rows_done, extract(epoch FROM busy)::float AS busy_s
FROM memsync.backfill WHERE fill = %(fill)s;

-- name: start_fill
-- Opens the checkpoint of a fill, or opens it again when an earlier fill came to its end.
INSERT INTO memsync.backfill
       (fill, next_block, end_block, rows_total, rows_done, unresolved, busy)
VALUES (%(fill)s, 0, %(end_block)s, %(rows_total)s, 0, %(unresolved)s, interval '0')
ON CONFLICT (fill) DO UPDATE SET
    unresolved = excluded.unresolved,
    next_block = CASE WHEN backfill.next_block < backfill.end_block
                      THEN backfill.next_block ELSE 0 END,
    rows_done = CASE WHEN backfill.next_block < backfill.end_block
                     THEN backfill.rows_done ELSE 0 END,
    busy = CASE WHEN backfill.next_block < backfill.end_block
                THEN backfill.busy ELSE interval '0' END,
    end_block = greatest(backfill.end_block, excluded.end_block),
    rows_total = greatest(backfill.rows_total, excluded.rows_total);

-- name: note_unresolved
-- Notes what this run wants to be done with users without a persona.
UPDATE memsync.backfill SET unresolved = %(unresolved)s WHERE fill = 'personas';

-- name: forget_fill
-- Removes the checkpoint of a fill: its column is new, or about to go.
DELETE FROM memsync.backfill WHERE fill = %(fill)s;

-- name: decided_rows
-- How many messages the map decides, or the archive where the map says nothing.
SELECT (SELECT coalesce(sum(rows_count), 0) FROM memsync.persona_map)::bigint
     + (SELECT count(*) FROM memsync.row_archive a
        JOIN conversation_history h ON h.id = a.history_id
        LEFT JOIN memsync.persona_map m
               ON m.user_id = h.user_id AND m.personality_id = h.personality_id
        WHERE m.user_id IS NULL) AS total;

-- name: restart_fill
-- Sends a fill over the whole table once more, for rows that a first pass could not decide.
UPDATE memsync.backfill SET next_block = 0, end_block = %(end_block)s WHERE fill = %(fill)s;

-- fragment: archived_personas
-- The personas that the archive knows of single rows, as far as they still exist: they count
-- before the map's, in place and in a copy.
SELECT a.history_id, a.persona_id
FROM memsync.row_archive a JOIN personas p ON p.id = a.persona_id;

-- fragment: archived_persona
-- The same of the row h.
SELECT k.persona_id FROM ({archived_personas}) k WHERE k.history_id = h.id;

-- fragment: in_this_part
-- A part of the rows of every page, by their numbers in it.
get_byte(tidsend(h.ctid), 5) %% %(parts)s = %(part)s;

-- name: fill_by_index
-- For this transaction: what decides a row is looked up. The planner cannot know how many rows of a
-- range are left, nor how many the archive has by now, and would read one of them for each of the
-- other.
SELECT set_config('enable_seqscan', 'off', true);

-- name: fill_personas
-- Fills persona_id in a part of a range of blocks: from the archive, else from the map.
UPDATE conversation_history h
SET persona_id = coalesce(({archived_persona}), m.persona_id)
FROM memsync.persona_map m
WHERE h.ctid >= %(start)s::tid AND h.ctid < %(stop)s::tid
  AND {in_this_part}
  AND h.persona_id IS NULL
  AND m.user_id = h.user_id AND m.personality_id = h.personality_id;

-- name: fill_archived
-- Fills persona_id of the rows of a range that only the archive decides.
UPDATE conversation_history h
SET persona_id = ({archived_persona})
WHERE h.ctid >= %(start)s::tid AND h.ctid < %(stop)s::tid
  AND h.persona_id IS NULL
  AND ({archived_persona}) IS NOT NULL;

-- name: fill_users
-- Fills user_id in one range of blocks: the owner of the persona, unless the archive knows better.
UPDATE conversation_history h
SET user_id = coalesce((SELECT a.user_id FROM memsync.row_archive a
                        JOIN users u ON u.id = a.user_id WHERE a.history_id = h.id),
                       p.owner_id)
FROM personas p
WHERE h.ctid >= %(start)s::tid AND h.ctid < %(stop)s::tid
  AND {in_this_part}
  AND h.user_id IS NULL AND p.id = h.persona_id;

-- name: save_fill
-- Moves the checkpoint, never back; runs in the batch's own transaction.
UPDATE memsync.backfill
SET next_block = greatest(next_block, %(next_block)s), rows_done = rows_done + %(rows)s,
    busy = busy + make_interval(secs => %(busy_s)s), updated_at = clock_timestamp()
WHERE fill = %(fill)s;

-- name: vacuum_history
-- Frees the space of the rows that the fill replaced, so that the next batches use it again, in the
-- indexes too: to leave those to the end was tried, and their pages split, which costs more.
-- TRUNCATE would take the strongest lock; SKIP_LOCKED gives way to whoever vacuums already.
VACUUM (TRUNCATE false, SKIP_LOCKED) conversation_history;

-- name: messages_without_user
-- How many messages no user could be found for on the way back, and the first of them.
SELECT count(*) AS total, min(id::text) AS first FROM conversation_history
WHERE user_id IS NULL;

-- name: rows_of_vanished_personas
-- How many messages have a persona that was deleted. Much quicker than the clearing, and mostly 0.
SELECT count(*) AS total FROM conversation_history h
WHERE h.persona_id IS NOT NULL
  AND NOT EXISTS (SELECT FROM personas p WHERE p.id = h.persona_id);

-- name: clear_vanished_personas
-- Empties persona_id in a range of blocks where its persona was deleted before the foreign key
-- stood.
UPDATE conversation_history h SET persona_id = NULL
WHERE h.ctid >= %(start)s::tid AND h.ctid < %(stop)s::tid AND h.persona_id IS NOT NULL
  AND NOT EXISTS (SELECT FROM personas p WHERE p.id = h.persona_id);

-- name: archive_exceptions
-- Keeps the user of every message whose persona belongs to somebody else; the owner says the rest.
INSERT INTO memsync.row_archive (history_id, user_id, persona_id, reason)
SELECT h.id, h.user_id, h.persona_id, 'owner-differs'
FROM conversation_history h JOIN personas p ON p.id = h.persona_id
WHERE h.user_id IS NOT NULL AND p.owner_id IS DISTINCT FROM h.user_id
ON CONFLICT (history_id) DO UPDATE SET user_id = excluded.user_id;

-- name: archive_personas
-- Keeps the persona of every message of which archive and map would say another, before
-- persona_id goes.
INSERT INTO memsync.row_archive (history_id, user_id, persona_id, reason)
SELECT h.id, h.user_id, h.persona_id, 'kept'
FROM conversation_history h
LEFT JOIN memsync.persona_map m USING (user_id, personality_id)
LEFT JOIN memsync.row_archive a ON a.history_id = h.id
WHERE h.persona_id IS NOT NULL
  AND h.persona_id IS DISTINCT FROM coalesce(a.persona_id, m.persona_id)
ON CONFLICT (history_id) DO UPDATE
SET persona_id = excluded.persona_id, reason = excluded.reason, source = NULL;

-- name: begin_record
-- Notes that a phase begins, or is taken back.
INSERT INTO memsync.runs (verb, phase, memsync_version)
VALUES (%(verb)s, %(phase)s, %(version)s) RETURNING id;

-- name: backfill_stands
-- Whether a backfill came to its end and was not taken back since.
SELECT coalesce((SELECT verb = 'run' FROM memsync.runs
                 WHERE outcome = 'done' AND phase IN ('backfill', 'expand')
                   AND (verb = 'rollback' OR phase = 'backfill')
                 ORDER BY id DESC LIMIT 1), false) AS found;

-- name: end_record
-- Notes how it ended.
UPDATE memsync.runs
SET ended_at = clock_timestamp(), outcome = %(outcome)s, lock_waits = %(lock_waits)s,
    rows_filled = %(rows_filled)s, waited_s = %(waited_s)s
WHERE id = %(id)s AND outcome IS DISTINCT FROM 'done';

-- name: note_archive_removed
-- Ends the way back, in the transaction that removes the archive.
UPDATE memsync.runs SET ended_at = clock_timestamp(), outcome = 'done'
WHERE id = (SELECT max(id) FROM memsync.runs WHERE verb = 'finalize');

-- name: note_user_id_dropped
-- Notes, in the transaction that drops user_id, that it was memsync, which archived it before.
UPDATE memsync.runs SET user_id_dropped = true
WHERE id = (SELECT max(id) FROM memsync.runs WHERE verb = 'run' AND phase = 'contract');

-- name: way_back_is_open
-- Whether the last that happened to user_id is that memsync archived and dropped it, not that it
-- came back or that the archive was removed.
SELECT coalesce((SELECT user_id_dropped FROM memsync.runs
                 WHERE user_id_dropped
                    OR outcome = 'done' AND (verb = 'finalize'
                                             OR verb = 'rollback' AND phase = 'contract')
                 ORDER BY id DESC LIMIT 1), false) AS open;

-- name: remove_archive
-- Ends the way back.
TRUNCATE memsync.persona_map, memsync.row_archive, memsync.created_persona, memsync.backfill,
         memsync.redesign_change, memsync.column_archive, memsync.config_fork, memsync.orphan_persona;

-- name: remove_merged
-- And the old table of choices, where it was merged into the app's new one.
DROP TABLE IF EXISTS memsync.user_personality_settings;

-- name: archive_size
-- What the archive of the way back holds.
SELECT (SELECT count(*) FROM memsync.persona_map) AS pairs,
       (SELECT count(*) FROM memsync.row_archive) AS rows,
       (SELECT count(*) FROM memsync.orphan_persona WHERE decision = 'quarantined') AS personas,
       (SELECT count(*) FROM memsync.column_archive) AS settings;
