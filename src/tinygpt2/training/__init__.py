"""Training: the loop, its callbacks and its checkpoints."""
