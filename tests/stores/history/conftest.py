"""The fixtures of support.app, a legacy app to migrate, for tests of the history in Postgres."""

from support.app import app, new_app, world, world_template

__all__ = ["app", "new_app", "world", "world_template"]
