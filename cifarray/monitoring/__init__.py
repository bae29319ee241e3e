"""Exporting metrics: of a store's runs to Prometheus, of a training through Ray."""
