-- What an earlier build has written otherwise.

-- name: what_left_was_removed
-- Notes as removed what was leaving: an earlier build had one note for both.
UPDATE memsync.memories SET removed = true, leaving = false WHERE leaving;
