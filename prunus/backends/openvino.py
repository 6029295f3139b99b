"""OpenVINO on the CPU."""

import functools
import logging
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, final

import numpy as np

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
from prunus.writing import folder_aside

_REMEDY = "Export the network again, and give inputs of the shapes and types it was exported for"


@functools.cache
def _core() -> Any:
    """Return the only Core of the process.

    The CPU plugin gives the thread an alternate signal stack. If several plugins are created and destroyed, the thread
    keeps a stack that has been freed (OpenVINO 2026.4), and the next signal (SIGCHLD or Ctrl-C) kills the process.
    """
    import openvino

    return openvino.Core()


def _settings(threads: int) -> dict[str, str]:
    return {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": "1",
        "INFERENCE_NUM_THREADS": str(threads),
        # The default is bfloat16 if the CPU supports it, which is not the computation that parity checks.
        "INFERENCE_PRECISION_HINT": "f32",
        # The other backends do not pin threads; a thread pinned to a busy core would look slow.
        "ENABLE_CPU_PINNING": "NO",
    }


@final
class OpenVINOSession(Session):
    """A network compiled by OpenVINO's CPU plugin for one set of input shapes."""

    device = "cpu"
    precision = "float32"

    def __init__(self, path: Path, shapes: Sequence[Shape], threads: int) -> None:
        import openvino

        self._path = path
        with refusals(f"loading {path} in OpenVINO", _REMEDY):
            model = _core().read_model(str(path))
            check_number(len(model.inputs), len(shapes))
            fixed = {index: openvino.PartialShape(list(shape)) for index, shape in enumerate(shapes)}
            for port, shape in zip(model.inputs, fixed.values(), strict=True):
                # reshape would also change sizes that the file fixes, and so the network.
                if not port.partial_shape.compatible(shape):
                    raise ValueError(f"{port.get_any_name()} is {port.partial_shape}, but {shape} is given")
            model.reshape(fixed)
            self._compiled = _core().compile_model(model, "CPU", _settings(threads))
            self._request = self._compiled.create_infer_request()

    def run(self, inputs: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
        """Run once; see `Session.run`."""
        with refusals(f"running {self._path} in OpenVINO", _REMEDY):
            check_number(len(self._compiled.inputs), len(inputs))
            results = self._request.infer(list(inputs))
            return {port.get_any_name(): np.array(results[port]) for port in self._compiled.outputs}

    def bind(self, inputs: Sequence[np.ndarray]) -> Callable[[], None]:
        """Bind `inputs`; see `Session.bind`."""
        self.run(inputs)  # wrong inputs are refused here, not while timing
        request, shared = self._request, list(inputs)

        def call() -> None:
            request.infer(shared, share_inputs=True, share_outputs=True)

        return call

    def close(self) -> None:
        """Release the compiled network."""
        del self._request, self._compiled


@final
class OpenVINO(Backend):
    """OpenVINO's CPU plugin: latency hint, one stream, float32, threads not pinned to cores."""

    name = "openvino"
    reads_modules = False
    package = "openvino"
    precisions = ("fp32", "int8")
    int8_suffix = ".xml"
    layout = ("Reorder", "Parameter", "Result", "Constant", "Input", "Output")

    def absence(self) -> str | None:
        """Return why OpenVINO is not available."""
        return missing_library("openvino", "install it with `pip install 'prunus[openvino]'`")

    def quantizer_absence(self) -> str | None:
        """Return why NNCF, OpenVINO's quantisation tool, is not available."""
        return missing_library("nncf", "install it with `pip install 'prunus[openvino,int8]'`")

    def quantize(self, path: Path, output: Path, batches: Sequence[tuple[np.ndarray, ...]]) -> None:
        """Quantise with NNCF; see `Backend.quantize`. The weights are written to a .bin file beside `output`."""
        onnx_file(path, self.name)
        with refusals(f"quantising {path} for OpenVINO", "Quantise for another backend, or deploy it in float32"):
            import nncf
            import openvino

            nncf.set_log_level(logging.ERROR)
            model = _core().read_model(str(path))
            found = nncf.quantize(model, nncf.Dataset(list(map(list, batches))), subset_size=len(batches))
            with folder_aside(output) as aside:
                openvino.save_model(found, str(aside / output.name), compress_to_fp16=False)
                for written in (output.with_suffix(".bin"), output):
                    (aside / written.name).replace(written)

    def profile(self, network: Network, inputs: Sequence[np.ndarray], threads: int, repeats: int) -> list[NodeTime]:
        """Return the time of each operator; see `Backend.profile`."""
        path = onnx_file(network, self.name)
        with refusals(f"profiling {path} in OpenVINO", _REMEDY):
            compiled = _core().compile_model(str(path), "CPU", {**_settings(threads), "PERF_COUNT": "YES"})
            request, least = compiled.create_infer_request(), dict[str, NodeTime]()
            for _ in range(repeats):
                request.infer(list(inputs))
                for node in request.profiling_info:
                    taken = 1000 * node.real_time.total_seconds()
                    before = least[node.node_name].milliseconds if node.node_name in least else math.inf
                    least[node.node_name] = NodeTime(node.node_name, node.node_type, min(before, taken))
        return list(least.values())

    def load(self, network: Network, shapes: Sequence[Shape], threads: int) -> Session:
        """Compile for exactly `shapes`, as for a target: dynamic shapes make this plugin slower."""
        return OpenVINOSession(onnx_file(network, self.name), shapes, threads)
