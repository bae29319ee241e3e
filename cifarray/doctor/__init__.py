"""`cifarray doctor`: what is wrong with this machine, a cluster or a store, and how to fix it."""
