"""ONNX Runtime on the CPU."""

import json
import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, final

import numpy as np

from prunus.backends.int8_onnx import quantize_static
from prunus.backends.interface import (
    Backend,
    Network,
    NodeTime,
    Session,
    Shape,
    check_number,
    missing_library,
    onnx_file,
    refusals,
)

_INT8_REMEDY = "Quantise for another backend, or deploy the network in float32"
_REMEDY = "Export the network again, and give inputs of the shapes and types it was exported for"


@final
class OnnxRuntimeSession(Session):
    """A network in ONNX Runtime's CPU provider."""

    device = "cpu"
    precision = "float32"

    def __init__(self, path: Path, threads: int) -> None:
        self._path = path
        with refusals(f"loading {path} in ONNX Runtime", _REMEDY):
            self._session = _session(path, _options(threads))
            self._inputs = [value.name for value in self._session.get_inputs()]
            self._outputs = [value.name for value in self._session.get_outputs()]

    def run(self, inputs: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
        """Run once; see `Session.run`."""
        with refusals(f"running {self._path} in ONNX Runtime", _REMEDY):
            check_number(len(self._inputs), len(inputs))
            feed = dict(zip(self._inputs, inputs, strict=True))
            return dict(zip(self._outputs, self._session.run(self._outputs, feed), strict=True))

    def bind(self, inputs: Sequence[np.ndarray]) -> Callable[[], None]:
        """Bind `inputs`; see `Session.bind`."""
        self.run(inputs)  # wrong inputs are refused here, not while timing
        session, outputs = self._session, self._outputs
        feed = dict(zip(self._inputs, inputs, strict=True))

        def call() -> None:
            session.run(outputs, feed)

        return call

    def close(self) -> None:
        """Release the session's memory and threads."""
        del self._session


def _options(threads: int) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors only, which are also raised as exceptions
    # Idle threads that spin would slow the network that is timed next.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return options


def _session(path: Path, options: Any) -> Any:
    import onnxruntime

    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _least(events: Sequence[Mapping[str, Any]]) -> list[NodeTime]:
    """Return the nodes of a profile in the order in which they ran, each with its minimum time."""
    found: dict[str, NodeTime] = {}
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            name, taken = event["name"].removesuffix("_kernel_time"), float(event["dur"]) / 1000
            before = found[name].milliseconds if name in found else math.inf
            found[name] = NodeTime(name, str(event["args"]["op_name"]), min(before, taken))
    return list(found.values())


@final
class OnnxRuntime(Backend):
    """ONNX Runtime, CPU execution provider, sequential execution."""

    name = "onnxruntime"
    reads_modules = False
    package = "onnxruntime"
    layout = ("ReorderInput", "ReorderOutput", "QuantizeLinear", "DequantizeLinear")
    precisions = ("fp32", "int8")

    def absence(self) -> str | None:
        """Return why ONNX Runtime is not available."""
        return missing_library("onnxruntime", "install it with `pip install onnxruntime`")

    def quantizer_absence(self) -> str | None:
        """Return why `onnxruntime.quantization` is not available."""
        return missing_library("onnxruntime.quantization", "install it with `pip install onnxruntime onnx`")

    def quantize(self, path: Path, output: Path, batches: Sequence[tuple[np.ndarray, ...]]) -> None:
        """Quantise statically to the QDQ format, with int8 weights and activations; see `Backend.quantize`."""
        onnx_file(path, self.name)
        with tempfile.TemporaryDirectory(prefix="prunus-") as folder, refusals(f"quantising {path}", _INT8_REMEDY):
            quantize_static(path, output, batches, Path(folder))

    def profile(self, network: Network, inputs: Sequence[np.ndarray], threads: int, repeats: int) -> list[NodeTime]:
        """Return the time of each operator; see `Backend.profile`."""
        path = onnx_file(network, self.name)
        with tempfile.TemporaryDirectory(prefix="prunus-") as folder, refusals(f"profiling {path}", _REMEDY):
            options = _options(threads)
            options.enable_profiling, options.profile_file_prefix = True, str(Path(folder) / "profile")
            session = _session(path, options)
            feed = dict(zip([value.name for value in session.get_inputs()], inputs, strict=True))
            for _ in range(repeats):
                session.run(None, feed)
            events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
        return _least(events)

    def load(self, network: Network, shapes: Sequence[Shape], threads: int) -> Session:
        """Load a file; a dynamic batch dimension stays dynamic, so `shapes` is not used."""
        return OnnxRuntimeSession(onnx_file(network, self.name), threads)
