"""What a network is trained for: the loss, the metric, how an output is read."""
