"""Sweeps: search spaces, trials and what came of them."""
