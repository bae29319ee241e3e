"""The driver: what a Ray job runs to execute one attempt of a run."""
