"""Phase isolate: memsync's own tables, and the index that serves reading by user."""
