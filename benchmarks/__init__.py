"""Measurements against peers and limits; each module is a command that prints a table."""
