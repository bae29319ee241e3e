"""What a trained network is used for: predict, evaluate, export. Needs no Ray."""
