"""What a job and a cluster profile may say; no torch, no ray."""
