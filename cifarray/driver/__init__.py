"""The driver: what a Ray job runs to carry out one attempt of a run."""
