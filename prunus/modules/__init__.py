"""Torch's modules: their kinds, tensors, ties, hooks and modes, and changed copies of them."""
