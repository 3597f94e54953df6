"""Short-term memory: the history in Postgres, the tables of the settings, the outbox.

Decides what the schema means; knows no migration step.
"""
