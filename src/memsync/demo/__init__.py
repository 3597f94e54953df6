"""The demonstration: a made-up app, and the story of migrating and reconciling it."""
