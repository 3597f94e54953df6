"""The preflight: looks for what would stop a run half way, before anything is changed."""
