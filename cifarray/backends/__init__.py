"""Ways to reach a cluster: a node of our own on this machine, and the Ray Jobs API."""
