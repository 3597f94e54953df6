"""Short-term memory: the history in Postgres, the tables of the settings, the outbox.

These modules know what the tables mean, and take no step of the migration.
"""
