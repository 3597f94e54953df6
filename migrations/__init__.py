"""Alembic's environment, and a revision for each phase: it calls the phase and does no more."""
