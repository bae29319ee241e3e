"""Ways to reach a cluster, a folder for each, behind one protocol."""
