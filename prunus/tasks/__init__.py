"""Tasks: the loss, the metric and the decoding of a network's output."""
