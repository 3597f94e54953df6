-- The archive that the way back needs.

-- name: archive_size
-- Counts the entries of the archive.
SELECT (SELECT count(*) FROM memsync.persona_map) AS pairs,
       (SELECT count(*) FROM memsync.row_archive) AS rows,
       (SELECT count(*) FROM memsync.orphan_persona WHERE decision = 'quarantined') AS personas,
       (SELECT count(*) FROM memsync.column_archive) AS settings;

-- name: remove_archive
-- Empties the archive, which ends the way back.
TRUNCATE memsync.persona_map, memsync.row_archive, memsync.created_persona, memsync.backfill,
         memsync.redesign_change, memsync.history_change, memsync.column_archive,
         memsync.config_fork, memsync.orphan_persona;

-- name: remove_merged
-- Drops the old table of choices, put aside when it was merged into the app's new one.
DROP TABLE IF EXISTS memsync.user_personality_settings;
