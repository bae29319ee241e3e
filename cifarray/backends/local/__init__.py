"""The backend of this machine: a Ray node that cifarray starts."""
