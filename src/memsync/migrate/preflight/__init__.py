"""What would stop a run half way, looked for before anything is changed."""
