"""Alembic's environment, and a revision for each phase, which calls the phase and does nothing else."""
