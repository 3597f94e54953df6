"""Alembic's environment and its revisions. A revision calls one phase and does nothing else."""
