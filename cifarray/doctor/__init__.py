"""`cifarray doctor`: what is wrong with this machine, a cluster or a store, and what fixes it."""
