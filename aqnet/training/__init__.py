"""Training: preparation on the training split, the Lightning task, the loop and checkpoints."""
