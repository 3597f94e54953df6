"""How memsync talks to each store (postgres, vectors), and what it keeps there (history, ltm)."""
