"""The limit on what a plan may add to a network: a file of 200 bytes can ask for more weights than fit into memory."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import nn

from prunus.errors import EditError

if TYPE_CHECKING:
    from prunus.surgery.edit import Edit

GROWTH = 128  # times the network's weights; an expansion at rate r makes r^2 times a layer's, and 4 is usual
LEAST = 2**26  # weights that any network may grow to: a quarter of a gigabyte
EDITS_PER_MODULE, LEAST_EDITS = 16, 1024  # a training of 1,000 epochs that cuts after each is within


def check_growth(edits: Sequence["Edit"], model: nn.Module) -> None:
    """Refuse edits that make more weights, or are more, than any network of the size of `model` needs.

    Raises:
        EditError: names the first edit beyond the bound, and the bound. Nothing has been made yet.
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
