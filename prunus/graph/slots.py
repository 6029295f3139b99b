"""What the slots of channel groups hold: the tensors of a model that make channels, and dimensions of groups alone."""

from collections.abc import Iterator

from torch import Tensor, nn

from prunus.errors import EditError
from prunus.graph.groups import ChannelGroups, Role, Slot
from prunus.modules.tensors import named_tensors


def producers(model: nn.Module, groups: ChannelGroups) -> list[tuple[Slot, Tensor]]:
    """Return the slots that make channels, each with its parameter or buffer of `model`.

    Raises:
        EditError: the groups were traced on another model, or before an edit.
    """
    tensors = named_tensors(model)
    found = []
    for slot in groups.slots:
        tensor = tensors.get(slot.path)
        if tensor is None:
            raise EditError(
                f"{slot.path}: the groups were traced on a model that has it, {type(model).__name__} has not"
            )
        if tensor.dim() <= slot.dim or tensor.shape[slot.dim] != slot.groups.numel():
            raise EditError(
                f"{slot.path}, dimension {slot.dim}: the groups were traced at size {slot.groups.numel()}, "
                f"the model has shape {list(tensor.shape)}; trace again after an edit"
            )
        if slot.role is Role.PRODUCER:
            found.append((slot, tensor))
    return found


def whole_dimensions(groups: ChannelGroups) -> Iterator[Tensor]:
    """Yield the groups of each tensor's dimension, and of each size kept as an attribute, that holds nothing else."""
    for inside in (*(slot.groups for slot in groups.slots), *(one.groups for one in groups.attributes)):
        if inside.numel() and bool((inside >= 0).all()):
            yield inside
