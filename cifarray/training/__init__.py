"""Training in plain PyTorch: loop, optimizers, schedules, checkpoint, evaluation."""
