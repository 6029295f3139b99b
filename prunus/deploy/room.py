"""Check that memory suffices before tensors are allocated: the system may kill a process that takes too much."""

import math
import os
from collections.abc import Sequence

from prunus.errors import DeployError

BYTES = 4  # of a float32


def check_room(shapes: Sequence[Sequence[int]]) -> None:
    """Refuse inputs of `shapes` that exceed the machine's memory.

    Raises:
        DeployError: they do; the message names the sizes.
    """
    wanted = sum(BYTES * math.prod(shape) for shape in shapes)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if wanted > memory:
        sizes = ", ".join(" x ".join(map(str, shape)) for shape in shapes)
        raise DeployError(
            f"inputs of {sizes} take {wanted / 1e9:,.1f} GB, and the machine has {memory / 1e9:,.1f} GB: take a "
            "smaller batch (--batch-size, deploy.benchmark.batch_size) or smaller images (--shape, data.size)"
        )
