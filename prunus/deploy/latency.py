"""Time networks in turn, so that their ratio is reliable even on a noisy machine."""

import contextlib
import dataclasses
import functools
import gc
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from prunus import backends
from prunus.backends import Backend, Network, Shape
from prunus.backends.interface import onnx_file
from prunus.backends.target import MOST_THREADS, Target
from prunus.deploy.export import export_onnx
from prunus.deploy.peak_memory import peak_memory_mb
from prunus.deploy.room import check_room
from prunus.errors import DeployError, RecipeError
from prunus.interrupt import check
from prunus.modules.tensors import device_of
from prunus.records import LatencyRecord


@dataclasses.dataclass(frozen=True, kw_only=True)
class BenchmarkSettings:
    """How networks are timed.

    Attributes:
        backends: names from `prunus.backends`, or dotted paths of private ones.
        threads: CPU threads of every backend; set it to the number that the network gets on the target.
        warmup: rounds before timing starts.
        repeats: timed rounds; a round runs every network once.
        batch_size: N of the inputs.
        targets: further targets, each with threads and batch of its own; they are timed first.
        measure_memory: also load each network in a separate process and record its peak memory.
    """

    backends: tuple[str, ...] = ("onnxruntime", "openvino")
    threads: int = 1
    warmup: int = 10
    repeats: int = 50
    batch_size: int = 1
    targets: tuple[Target, ...] = ()
    measure_memory: bool = True

    def __post_init__(self) -> None:
        least = {"threads": 1, "warmup": 0, "repeats": 1, "batch_size": 1}
        for key, smallest in least.items():
            if getattr(self, key) < smallest:
                raise RecipeError(f"{key} is {getattr(self, key)}: it must be at least {smallest}")
        if self.threads > MOST_THREADS:
            raise RecipeError(f"threads is {self.threads}: at most {MOST_THREADS}, and the target's cores at best")
        if not (self.backends or self.targets) or len(set(self.backends)) != len(self.backends):
            raise RecipeError(f"backends is {list(self.backends)}: name at least one, and none twice")
        for name in self.backends:
            backends.find(name)

    @property
    def all_targets(self) -> tuple[Target, ...]:
        """The targets on which networks are timed: `targets`, then each backend at `threads` and `batch_size`."""
        named = (Target(backend=name, threads=self.threads, batch=self.batch_size) for name in self.backends)
        return tuple(dict.fromkeys((*self.targets, *named)))


def benchmark(
    networks: Mapping[str, str | Path | nn.Module],
    input_shape: Shape | Sequence[Shape],
    settings: BenchmarkSettings | None = None,
    *,
    note: Callable[[str], None] | None = None,
) -> list[LatencyRecord]:
    """Time `networks` on every target and return one record for each pair, target by target.

    On a target all networks are loaded, then run in turn, round after round: a slowdown of the machine affects all of
    them, so the ratio of their medians is more reliable than a single median. Targets are timed one after the other,
    because their thread pools would disturb each other. Python's garbage collection is off while timing. Inputs are
    standard normal, the same for all networks. Copies to and from a device are not part of the latency.

    Args:
        networks: ONNX files, or modules; modules are exported for the backends that read files.
        input_shape: shape of the input without the batch dimension, (3, 128, 256), or one such tuple per input. A
            target with a resolution of its own takes images of that size.
        settings: how to time; the defaults if None.
        note: called with a sentence for each impossible measurement; if None, an absent backend is an error.

    Raises:
        DeployError: no backend can be used, a network does not load or run on one, or a file is given to PyTorch.
    """
    settings = settings or BenchmarkSettings()
    if not networks:
        raise DeployError("there are no networks to time: give at least one name and network")
    sources = {name: Path(net) if isinstance(net, str) else net for name, net in networks.items()}
    given = _inputs(input_shape)
    records: list[LatencyRecord] = []
    with tempfile.TemporaryDirectory(prefix="prunus-") as folder:

        @functools.cache
        def exported(name: str, shapes: tuple[Shape, ...]) -> Path:
            return _export(sources[name], shapes, Path(tempfile.mkdtemp(dir=folder)) / "network.onnx")

        for target, backend in _usable(settings.all_targets, sources, note):
            check()
            shapes = tuple((target.batch, *target.sized(shape)) for shape in given)
            check_room(shapes)
            ready = {name: net if backend.reads_modules else exported(name, shapes) for name, net in sources.items()}
            if target.precision == "int8":
                ready = _in_int8(backend, ready, shapes, Path(tempfile.mkdtemp(dir=folder)))
            records += _benchmark_on(target, backend, ready, shapes, settings, note)
    return records


def _inputs(input_shape: Shape | Sequence[Shape]) -> list[Shape]:
    """Return the shape of each input, without the batch dimension."""
    several = [shape for shape in input_shape if not isinstance(shape, int)]
    shapes: list[Shape] = several or [tuple(size for size in input_shape if isinstance(size, int))]
    if len(several) not in (0, len(input_shape)) or any(size < 1 for shape in shapes for size in shape):
        raise DeployError(
            f"input_shape is {input_shape}: give one input's sizes without the batch, such as (3, 128, 256), or a "
            "tuple of such tuples"
        )
    return shapes


def _usable(
    targets: Sequence[Target], sources: Mapping[str, Network], note: Callable[[str], None] | None
) -> list[tuple[Target, Backend]]:
    """Return the targets whose backends are available; pass the others to `note`, or raise if it is None."""
    files = [str(network) for network in sources.values() if isinstance(network, Path)]
    usable = []
    for target in targets:
        name, backend = target.backend, backends.find(target.backend)
        reason = backend.absence()
        if reason is not None and note is None:
            raise DeployError(f"{name} cannot be used: {reason}; or leave it out of backends")
        if reason is not None and note is not None:
            note(f"Latency was not measured on {name}: {reason}.")
            continue
        if backend.reads_modules and files:
            raise DeployError(
                f"{name} runs modules, not files: give the nn.Module in place of {files[0]}, or leave {name} out of "
                "backends"
            )
        usable.append((target, backend))
    if not usable:
        raise DeployError(
            f"none of the backends {', '.join(each.backend for each in targets)} can be used here: the notes say why"
        )
    return usable


def _export(network: Network, shapes: Sequence[Shape], path: Path) -> Path:
    """Return `network` if it is a file, else export the module to `path` for exactly `shapes`."""
    if isinstance(network, Path):
        return network
    device = device_of(network)
    inputs = tuple(torch.zeros(shape, device=device) for shape in shapes)
    return export_onnx(network, inputs, path, dynamic_batch=False)


def _benchmark_on(
    target: Target,
    backend: Backend,
    networks: Mapping[str, Network],
    shapes: Sequence[Shape],
    settings: BenchmarkSettings,
    note: Callable[[str], None] | None,
) -> list[LatencyRecord]:
    """Load all networks on one target, time them in turn, and return a record of each."""
    inputs = _standard_normal(shapes)
    with contextlib.ExitStack() as stack:
        sessions = {
            name: stack.enter_context(backend.load(network, shapes, target.threads))
            for name, network in networks.items()
        }
        calls = {name: session.bind(inputs) for name, session in sessions.items()}
        seconds = time_in_turn(calls, settings.warmup, settings.repeats)
        places = {name: (session.device, session.precision) for name, session in sessions.items()}
    on_cpu = all(device == "cpu" for device, _ in places.values())
    if settings.measure_memory and not on_cpu and note is not None:
        note(f"Peak memory was not measured on {backend.name}: it is measured on the CPU only.")
    return [
        LatencyRecord(
            model=name,
            backend=backend.name,
            device=places[name][0],
            input_shape=shapes[0],
            threads=target.threads,
            warmup=settings.warmup,
            repeats=settings.repeats,
            median_ms=1000 * float(np.median(seconds[name])),
            p95_ms=1000 * float(np.percentile(seconds[name], 95)),
            peak_memory_mb=peak_memory_mb(network, shapes, backend=target.backend, threads=target.threads)
            if settings.measure_memory and on_cpu
            else None,
            precision="int8" if target.precision == "int8" else places[name][1],
        )
        for name, network in networks.items()
    ]


def _standard_normal(shapes: Sequence[Shape]) -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return [random.standard_normal(shape, dtype=np.float32) for shape in shapes]


def _in_int8(
    backend: Backend, networks: Mapping[str, Network], shapes: Sequence[Shape], folder: Path
) -> dict[str, Network]:
    """Return the networks in INT8, calibrated on noise: the latency of integer operations is independent of values."""
    found: dict[str, Network] = {}
    for number, (name, network) in enumerate(networks.items()):
        file = folder / f"{number}{backend.int8_suffix}"
        backend.quantize(onnx_file(network, backend.name), file, [tuple(_standard_normal(shapes))])
        found[name] = file
    return found


def time_in_turn(calls: Mapping[str, Callable[[], None]], warmup: int, repeats: int) -> dict[str, list[float]]:
    """Return `repeats` durations in seconds for each call; a round makes every call once, in the same order.

    The order is fixed so that each call always finds the caches as the same predecessor left them.
    """
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    with _no_garbage_collection():
        for turn in range(warmup + repeats):
            check()
            for name, call in calls.items():
                start = time.perf_counter()
                call()
                duration = time.perf_counter() - start
                if turn >= warmup:
                    seconds[name].append(duration)
    return seconds


@contextlib.contextmanager
def _no_garbage_collection() -> Iterator[None]:
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
