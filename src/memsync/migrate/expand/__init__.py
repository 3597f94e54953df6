"""Phase expand: the column persona_id, and the triggers that keep both ids in step."""
