"""How a run behaves while clients work."""
