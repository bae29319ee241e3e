"""The networks: one file per family, and the registry that names them without torch."""
