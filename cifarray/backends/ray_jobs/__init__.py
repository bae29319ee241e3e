"""The backend of a Ray cluster that its user started, reached by the Ray Jobs API."""
