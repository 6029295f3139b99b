"""The entries of an output, one per sub-task: finding, decoding, comparing and drawing them.

A network returns {"segmentation": scores, "detection": {"heat": ..., "sides": ...}}; its exported file has flat outputs
"segmentation", "detection_heat" and "detection_sides".
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from prunus.errors import TrainingError
from prunus.modules.tree import items


def entries_of(output: Any) -> dict[str, Any]:
    """Return the entries of a dictionary, dataclass, named tuple, tuple or list by name; {} for a tensor."""
    if hasattr(output, "_asdict"):
        return dict(output._asdict())
    return {str(key): child for key, child in items(output) or ()}


def entry(output: Any, key: str, name: str) -> Any:
    """Return the entry `key` of a network's output, read by the sub-task `name`; flat names are collected in a dict.

    Raises:
        TrainingError: the output has no such entry; the message lists its entries.
    """
    entries = entries_of(output)
    if key in entries:
        return entries[key]
    if inner := _inside(entries, key):
        return inner
    known = f"with {', '.join(entries)}" if entries else "without entries"
    raise TrainingError(
        f"the network returns a {type(output).__name__} {known}, and the sub-task {name} reads the entry {key!r}: "
        f"return a dictionary with an entry for each sub-task, or name its entry (task.tasks.{name}.output)"
    )


def flat(outputs: Mapping[str, Tensor], key: str) -> dict[str, Tensor]:
    """Return the entry `key` of flat outputs, under the names that a network returning only this entry would use."""
    return {"output": outputs[key]} if key in outputs else _inside(outputs, key)


def same_decisions(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> tuple[int, int]:
    """Return at how many positions the class of highest score (one channel: the sign) agrees, and their number."""
    same = [_decision(scores) == _decision(second[name]) for name, scores in first.items()]
    return sum(int(each.sum()) for each in same), sum(each.numel() for each in same)


class PartlyDecoding(nn.Module):
    """A network with several outputs, some of them decoded."""

    def __init__(self, model: nn.Module, decoders: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.model, self.names, self.decoders = model, list(decoders), nn.ModuleList(decoders.values())

    def forward(self, images: Tensor) -> dict[str, Any]:
        """Return the entries, decoded where there is a decoder."""
        decoders = dict(zip(self.names, self.decoders, strict=True))
        found = entries_of(self.model(images))
        return {key: decoders[key](each) if key in decoders else each for key, each in found.items()}


def stacked(pictures: list[Tensor]) -> Tensor:
    """Return uint8 pictures [3, h, w] stacked vertically, padded with white to the widest."""
    width = max(picture.shape[2] for picture in pictures)
    return torch.cat([functional.pad(each, (0, width - each.shape[2]), value=255) for each in pictures], dim=1)


def _inside(entries: Mapping[str, Any], key: str) -> dict[str, Any]:
    """Return the entries whose names begin with `key_`, without that prefix."""
    return {own.removeprefix(f"{key}_"): each for own, each in entries.items() if own.startswith(f"{key}_")}


def _decision(scores: Tensor) -> Tensor:
    return scores.argmax(1) if scores.dim() > 1 and scores.shape[1] > 1 else scores > 0
