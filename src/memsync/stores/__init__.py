"""The stores: how to talk to each (postgres, vectors), and what memory is in it (history, ltm)."""
