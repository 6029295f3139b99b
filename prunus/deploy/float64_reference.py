"""A network's outputs in float64, and possible reasons why its exported file differs."""

import numpy as np
import torch
from torch import nn

from prunus.modules.code import place_of_name
from prunus.modules.copying import copied
from prunus.modules.tensors import in_float64
from prunus.verify import outputs

EXPORTING = ("is_in_onnx_export", "is_exporting", "is_dynamo_compiling", "is_compiling", "is_scripting", "is_tracing")


class Float64Reference:
    """A network in float64, copied at its first use, against which its own rounding is measured."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.copy: nn.Module | None = None
        self.reason = ""  # why the network did not run in float64

    def __call__(self, batch: tuple[np.ndarray, ...]) -> list[np.ndarray] | None:
        """Return the outputs for a batch, in order; None if the network does not run in float64."""
        try:
            if self.copy is None:
                self.copy = copied(self.model, isolated=True).cpu().double()
            return [each.numpy() for each in outputs(self.copy, in_float64(tuple(map(torch.tensor, batch))))]
        except (RuntimeError, TypeError) as error:
            self.reason = str(error).strip().partition("\n")[0][:160] or type(error).__name__
            return None


def remarks(model: nn.Module, precise: Float64Reference) -> str:
    """Return possible reasons why a network and its file differ, as sentences that end with a space."""
    text = ""
    if (found := place_of_name(model, EXPORTING)) is not None:
        text += (
            f"Its code checks whether it is being exported ({found[0]}, in {found[1]}), so the file may compute "
            "something else on purpose: compare the file with that branch. "
        )
    if precise.reason:
        text += (
            f"There is no float64 reference, since the network does not run in float64 ({precise.reason}): its own "
            "rounding is not known, and the fixed tolerance is used. "
        )
    return text
