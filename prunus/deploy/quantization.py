"""INT8: quantise an exported network with its backend's own tool, calibrated on samples."""

import dataclasses
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch

from prunus import backends
from prunus.backends import Backend
from prunus.backends.signature import Inputs, as_arrays, as_tuple
from prunus.errors import DeployError, RecipeError
from prunus.interrupt import check


@dataclasses.dataclass(frozen=True, kw_only=True)
class Quantize:
    """How the narrow network is quantised, and how much accuracy this may cost.

    Attributes:
        backends: backends that will run it; each has its own tool and file.
        samples: images of the training split that calibrate the ranges of the activations, drawn with the run's seed.
        max_drop: percentage points of the task's main metric that INT8 may lose on the validation split, compared with
            the file in floating point; a file that loses more is refused.
    """

    backends: tuple[str, ...] = ("onnxruntime",)
    samples: int = 256
    max_drop: float = 1.0

    def __post_init__(self) -> None:
        if type(self.samples) is not int or self.samples < 1 or not 0 <= self.max_drop <= 100:
            raise RecipeError(
                f"quantize: samples {self.samples!r} must be at least 1, max_drop {self.max_drop!r} percentage points "
                "between 0 and 100"
            )
        if not self.backends or len(set(self.backends)) != len(self.backends):
            raise RecipeError(f"quantize.backends is {list(self.backends)}: name at least one, and none twice")
        for name in self.backends:
            backends.find(name)


def quantizer(name: str) -> Backend:
    """Return the backend `name`, checked to be able to quantise.

    Raises:
        DeployError: it does not support INT8, or it or its tool is absent (the message says how to install it).
    """
    chosen = backends.find(name)
    if "int8" not in chosen.precisions:
        able = ", ".join(known for known, one in backends.BACKENDS.items() if "int8" in one.precisions)
        raise DeployError(f"{name} does not support INT8: quantise for {able}")
    if (reason := chosen.absence() or chosen.quantizer_absence()) is not None:
        raise DeployError(f"{name} cannot quantise: {reason}")
    return chosen


def quantize(path: str | Path, output: str | Path, samples: Iterable[Inputs], *, backend: str = "onnxruntime") -> Path:
    """Write the network in the file `path` in INT8, for `backend`, and return the new file.

    Weights are int8 per output channel; the range of each activation is the range over the samples:
    q = round(x / scale) + zero_point.

    Args:
        path: an ONNX file in float32.
        output: the file to write, with the backend's suffix: .onnx, or .xml for OpenVINO, which writes the weights
            beside it (.bin).
        samples: batches for calibration, each an input of the network: a tensor [N, ...] or a tuple of them.
        backend: the backend that will run it.

    Raises:
        DeployError: no samples, a backend without INT8, an operator that its tool does not support, another suffix.
    """
    chosen, output = quantizer(backend), Path(output)
    if output.suffix != chosen.int8_suffix:
        raise DeployError(f"{output}: the INT8 files of {backend} end in {chosen.int8_suffix}; name it so")
    batches = _checked(samples)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DeployError(f"{output} cannot be written ({error.strerror}): choose another") from error
    chosen.quantize(Path(path), output, batches)
    return output


def calibration_indices(length: int, samples: int, seed: int) -> list[int]:
    """Return the indices of the samples for calibration, out of `length`, in ascending order; determined by `seed`."""
    drawn = torch.randperm(length, generator=torch.Generator().manual_seed(seed))[:samples]
    return sorted(drawn.tolist())


def _checked(samples: Iterable[Inputs]) -> list[tuple[np.ndarray, ...]]:
    found = []
    for batch in (samples,) if isinstance(samples, torch.Tensor | tuple) else samples:
        check()
        found.append(as_arrays(as_tuple(batch)))
    if not found or any(not array.size for batch in found for array in batch):
        raise DeployError("there are no samples to calibrate with: give at least one batch [N, ...] with N >= 1")
    return found
