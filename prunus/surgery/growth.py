"""The limit on what a plan adds to a network: a file of 200 bytes could ask for more weights than fit into memory."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import nn

from prunus.errors import EditError

if TYPE_CHECKING:
    from prunus.surgery.edit import Edit

GROWTH = 128  # limit relative to the network's weights; expansion at rate r, usually 4, makes r^2 times a layer's
LEAST = 2**26  # weights that any network may grow to: 256 MiB in float32
EDITS_PER_MODULE, LEAST_EDITS = 16, 1024  # enough for a training of 1,000 epochs that cuts after each


def check_growth(edits: Sequence["Edit"], model: nn.Module) -> None:
    """Refuse edits that are too many, or that create too many weights, for a network of the size of `model`.

    Raises:
        EditError: a bound is exceeded; the message names it and the first edit beyond it. Nothing has been created yet.
    """
    bound = LEAST_EDITS + EDITS_PER_MODULE * (len(list(model.modules())) if len(edits) > LEAST_EDITS else 0)
    if len(edits) > bound:
        raise EditError(f"there are {len(edits):,} edits, and at most {bound:,} for a network of as many modules")
    created = [max(0, edit.num_created()) for edit in edits]
    if not any(created):
        return
    weights = sum(parameter.numel() for parameter in model.parameters())
    total, most = weights, max(LEAST, GROWTH * weights)
    for number, (edit, more) in enumerate(zip(edits, created, strict=True)):
        total += more
        if total > most:
            raise EditError(
                f"edit {number} ({edit.edit_name}) would make {more:,} weights, {total:,} with those "
                f"before it, of a network that has {weights:,}: at most {most:,} are made "
                f"({GROWTH} times as many, or {LEAST:,}); prunus.surgery.growth.GROWTH allows larger expansions"
            )
