"""YOLO's blocks that halve a layer's output, rewritten as two layers: torch-pruning miscounts channels of halves."""

import copy
from typing import Any

import torch
from torch import Tensor, nn


class TwoLayers(nn.Module):
    """The function of a block with `cv1`, `cv2` and `m`, with one layer for each half of the output of `cv1`."""

    def __init__(self, block: Any) -> None:
        super().__init__()
        self.i, self.f, self.type = block.i, block.f, block.type  # by these the network routes its layers
        self.first, self.second = (_half(block.cv1, number) for number in range(2))
        self.cv2, self.m = block.cv2, block.m

    def forward(self, images: Tensor) -> Tensor:
        """Return the block's output."""
        found = [self.first(images), self.second(images)]
        for part in self.m:
            found.append(part(found[-1]))
        result: Tensor = self.cv2(torch.cat(found, 1))
        return result


def split_(model: Any) -> None:
    """Replace the blocks of a YOLO network that use `chunk`."""
    for number, block in enumerate(model.model):
        if hasattr(block, "forward_split"):
            model.model[number] = TwoLayers(block)


def _half(layer: Any, number: int) -> nn.Module:
    result: Any = copy.deepcopy(layer)
    for name, tensor in (*layer.named_parameters(), *layer.named_buffers()):
        if tensor.dim():
            parent = result.get_submodule(name.rpartition(".")[0])
            half = tensor.detach().chunk(2)[number].clone()
            value = nn.Parameter(half) if isinstance(tensor, nn.Parameter) else half
            setattr(parent, name.rpartition(".")[2], value)
    result.conv.out_channels = result.bn.num_features = layer.conv.out_channels // 2
    return result
