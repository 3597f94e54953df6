"""Pacing: how a run behaves while clients work."""
