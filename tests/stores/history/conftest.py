"""The app as it was deployed, for tests of what memory is in Postgres."""

from support.app import app, new_app, world, world_template

__all__ = ["app", "new_app", "world", "world_template"]
