"""TEACH: the loop, what it changes, and its way into a checkpoint and back."""
