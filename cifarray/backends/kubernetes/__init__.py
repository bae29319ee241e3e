"""Runs on Kubernetes: their manifests, how they are submitted, watched and ended."""
