"""Phase backfill: persona_id of every message, then its indexes and key."""
