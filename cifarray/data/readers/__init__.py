"""Readers of published archives; everything an archive says is checked first."""
