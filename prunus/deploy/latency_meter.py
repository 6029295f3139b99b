"""Meters: the latency of one network in milliseconds, alone or relative to a reference timed in turn with it."""

import shutil
import tempfile
import weakref
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from torch import Tensor, nn

from prunus import backends
from prunus.backends import Backend, Network
from prunus.backends.signature import Inputs, as_arrays, as_tuple
from prunus.backends.target import Target
from prunus.deploy.export import export_onnx
from prunus.deploy.latency import BenchmarkSettings, time_in_turn
from prunus.deploy.quantization import quantize
from prunus.errors import DeployError
from prunus.modules.copying import copied
from prunus.modules.modes import in_evaluation
from prunus.modules.tensors import device_of
from prunus.surgery import apply, fuse


def latency_ms(
    model: nn.Module,
    inputs: Inputs,
    *,
    backend: str = "onnxruntime",
    threads: int = 1,
    warmup: int = 5,
    repeats: int = 20,
) -> float:
    """Return the median latency of `model` on `inputs` in milliseconds.

    For backends that read files, the model is exported for exactly the inputs' shapes. The load of the machine may
    change between two calls: to compare networks, or to meet a budget, use `LatencyMeter` or `benchmark`, which time
    networks in turn.

    Raises:
        DeployError: the backend is absent, or the model cannot be exported or run there.
    """
    settings = BenchmarkSettings(backends=(backend,), threads=threads, warmup=warmup, repeats=repeats)
    target, chosen = present(settings)
    with tempfile.TemporaryDirectory(prefix="prunus-") as folder:
        network = _loadable(model, inputs, chosen, Path(folder) / "model.onnx")
        return _medians({"model": network}, inputs, chosen, target, settings)["model"]


class LatencyMeter:
    """Times networks, BatchNorm folded, on the first target of the settings whose backend is available.

    Each network is timed in turn with a reference, round after round, and its latency is multiplied by the reference's
    first latency over its current one, since a slowdown of the machine affects both. Measurements made at different
    times are then comparable, as a budget in milliseconds requires.

    Args:
        reference: the network at the start of a search or a training.
        inputs: an example of its inputs, a tensor [N, ...] or a tuple of them.
        settings: targets, rounds. For INT8 each network is first quantised, calibrated on `inputs`, since the latency
            of integer operations does not depend on their values.

    Raises:
        DeployError: no backend of the settings is available, or the reference cannot be exported or run there.
    """

    def __init__(self, reference: nn.Module, inputs: Inputs, settings: BenchmarkSettings | None = None) -> None:
        self.settings = settings or BenchmarkSettings()
        self.inputs, (self.target, self.backend) = as_tuple(inputs), present(self.settings)
        folder = tempfile.mkdtemp(prefix="prunus-")
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        self._folder = Path(folder)
        self.reference = self._deployed(reference, "reference")
        self.first_ms: float | None = None

    def __call__(self, model: nn.Module) -> float:
        """Return the median latency of `model` in milliseconds."""
        networks = {"reference": self.reference, "model": self._deployed(model, "model")}
        timed = _medians(networks, self.inputs, self.backend, self.target, self.settings)
        self.first_ms = self.first_ms or timed["reference"]
        return timed["model"] * self.first_ms / timed["reference"]

    def _deployed(self, model: nn.Module, name: str) -> Network:
        own = folded(model, self.inputs, on_cpu=not self.backend.reads_modules)
        inputs = tuple(tensor.to(device_of(own)) for tensor in self.inputs)
        path = self._folder / f"{name}.onnx"
        network = _loadable(own, inputs, self.backend, path)
        if self.target.precision != "int8":
            return network
        output = path.with_name(f"{name}-int8{self.backend.int8_suffix}")
        return quantize(path, output, inputs, backend=self.backend.name)


def folded(model: nn.Module, inputs: tuple[Tensor, ...], *, on_cpu: bool = True) -> nn.Module:
    """Return a copy of `model` as deployed: in evaluation mode, BatchNorm folded."""
    own = in_evaluation(copied(model, isolated=True))
    own = own.cpu() if on_cpu else own
    return apply(fuse(own, tuple(tensor.to(device_of(own)) for tensor in inputs)), own)


def present(settings: BenchmarkSettings) -> tuple[Target, Backend]:
    """Return the first target of the settings that can be used here, and its backend."""
    reasons = list[str]()
    for target in settings.all_targets:
        reason = backends.find(target.backend).absence()
        if reason is None:
            return target, backends.find(target.backend)
        reasons.append(f"{target.backend}: {reason}")
    raise DeployError(f"latency cannot be measured on {'; '.join(reasons)}")


def _loadable(model: nn.Module, inputs: Inputs, backend: Backend, path: Path) -> Network:
    return model if backend.reads_modules else export_onnx(model, inputs, path, dynamic_batch=False)


def _medians(
    networks: Mapping[str, Network], inputs: Inputs, backend: Backend, target: Target, settings: BenchmarkSettings
) -> dict[str, float]:
    """Return the median latency of each network in milliseconds; the networks are run in turn."""
    arrays = as_arrays(inputs)
    shapes: Sequence[tuple[int, ...]] = [array.shape for array in arrays]
    with ExitStack() as stack:
        calls = {
            name: stack.enter_context(backend.load(network, shapes, target.threads)).bind(arrays)
            for name, network in networks.items()
        }
        seconds = time_in_turn(calls, settings.warmup, settings.repeats)
    return {name: 1000 * float(np.median(taken)) for name, taken in seconds.items()}
