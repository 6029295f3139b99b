"""TEACH: the training loop, its state, and checkpoints of it."""
