"""THE GROUND FLOOR: torch's modules, their kinds, tensors and modes, and how a copy of one is changed."""
