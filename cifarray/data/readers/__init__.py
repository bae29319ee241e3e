"""Readers of published archives; whatever an archive says is checked before it is believed."""
