"""The demonstration: a made-up app and the story that is told on it."""
