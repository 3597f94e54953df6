-- The checkpoint of a fill: how far it came, and what it counted.

-- name: fill_state
-- The checkpoint of a fill; no row before the fill was first started.
SELECT next_block, end_block, rows_total, rows_done, extract(epoch FROM busy)::float AS busy_s
FROM memsync.backfill WHERE fill = %(fill)s;

-- name: start_fill
-- Opens the checkpoint of a fill. A fill that was cut short goes on; one that ended starts again.
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

-- name: restart_fill
-- Sends a fill over the whole table once more, for rows that a first pass could not decide.
UPDATE memsync.backfill SET next_block = 0, end_block = %(end_block)s WHERE fill = %(fill)s;

-- name: save_fill
-- Moves the checkpoint, never back, in the transaction of the batch.
UPDATE memsync.backfill
SET next_block = greatest(next_block, %(next_block)s), rows_done = rows_done + %(rows)s,
    busy = busy + make_interval(secs => %(busy_s)s), updated_at = clock_timestamp()
WHERE fill = %(fill)s;

-- name: rewind_fill
-- Sends a fill back to its start, because a copy begins or was dropped.
UPDATE memsync.backfill SET next_block = 0, rows_done = 0, busy = interval '0'
WHERE fill = %(fill)s;

-- name: fill_is_half_done
-- Whether a fill in place was cut short.
SELECT coalesce((SELECT next_block > 0 AND next_block < end_block
                 FROM memsync.backfill WHERE fill = 'personas'), false) AS found;
