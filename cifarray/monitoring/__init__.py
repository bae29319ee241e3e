"""Monitoring: every metric that cifarray exports, and the two ways in which it does."""
