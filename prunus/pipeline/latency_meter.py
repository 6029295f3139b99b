"""The meter of a run: the latency of a network during training, measured as it would be deployed."""

import dataclasses
import shutil
import tempfile
import weakref
from pathlib import Path

from torch import Tensor, nn

from prunus.deploy import BenchmarkSettings, backends, benchmark, export_onnx
from prunus.modules.copying import copied
from prunus.modules.given import Inputs, arguments
from prunus.surgery import apply, fuse


class LatencyMeter:
    """Times networks, BatchNorm folded, on the first of the recipe's backends that is present.

    Each is timed interleaved with a reference, the network that the stage begins with, and scaled by the reference's
    first latency over its present one: a run lasts for hours, and the load of the machine changes.
    """

    def __init__(self, reference: nn.Module, inputs: Tensor, settings: BenchmarkSettings) -> None:
        name = next(name for name in settings.backends if backends.find(name).absence() is None)
        self.inputs = inputs.cpu()
        self.settings = dataclasses.replace(settings, backends=(name,), measure_memory=False)
        self.reference: nn.Module | Path = self._deployed(reference)
        self.first_ms: float | None = None
        if not backends.find(name).reads_modules:
            folder = Path(tempfile.mkdtemp(prefix="prunus-"))
            weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
            batch = self.inputs[:1].expand(settings.batch_size, *self.inputs.shape[1:]).contiguous()
            self.reference = export_onnx(self.reference, batch, folder / "reference.onnx", dynamic_batch=False)

    def __call__(self, model: nn.Module) -> float:
        """Return the median latency of `model` in milliseconds."""
        networks = {"reference": self.reference, "model": self._deployed(model)}
        timed = {r.model: r.median_ms for r in benchmark(networks, tuple(self.inputs.shape[1:]), self.settings)}
        self.first_ms = self.first_ms or timed["reference"]
        return timed["model"] * self.first_ms / timed["reference"]

    def _deployed(self, model: nn.Module) -> nn.Module:
        own = copied(model, isolated=True).cpu().eval()
        return apply(fuse(own, self.inputs), own).eval()


def usual_meter(model: nn.Module, inputs: Inputs) -> LatencyMeter | None:
    """Return the meter where nobody names one: ONNX Runtime on one thread; None where `inputs` are not one tensor."""
    args = arguments(inputs)
    if len(args) != 1 or not isinstance(args[0], Tensor):
        return None
    return LatencyMeter(model, args[0], BenchmarkSettings(backends=("onnxruntime",)))
