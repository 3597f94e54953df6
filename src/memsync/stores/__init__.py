"""The only code that talks to a driver: what a store must promise, and the stores that keep it."""
