"""TensorRT 10 and 11 on an NVIDIA GPU.

Written to the documented Python API (named tensors, `execute_async_v3`, strongly typed networks). The project's tests
have not run this file, since none of their machines has TensorRT. Buffers are PyTorch CUDA tensors.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, final

import numpy as np
import torch

from prunus.backends.interface import (
    Backend,
    Network,
    Session,
    Shape,
    missing_library,
    onnx_file,
    refusals,
)
from prunus.errors import DeployError

_REMEDY = "Check that this TensorRT supports the file's operators and that the GPU has memory left"


@final
class TensorRTSession(Session):
    """An engine built for one set of input shapes, in float32 without TF32, on the current GPU."""

    precision = "float32"

    def __init__(self, path: Path, shapes: Sequence[Shape]) -> None:
        self.device = f"cuda:{torch.cuda.current_device()}"
        self._path = path
        with refusals(f"building an engine of {path} in TensorRT", _REMEDY):
            self._engine = _build(path, shapes)
            self._context = self._engine.create_execution_context()
        self._stream: Any = torch.cuda.Stream()  # type: ignore[no-untyped-call]

    def run(self, inputs: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
        """Run once; see `Session.run`."""
        with refusals(f"running {self._path} in TensorRT", _REMEDY):
            buffers = self._allocate(inputs)
            self._execute()
            return {name: buffers[name].cpu().numpy() for name in self._names("OUTPUT")}

    def bind(self, inputs: Sequence[np.ndarray]) -> Callable[[], None]:
        """Bind `inputs`; see `Session.bind`. The call waits for the device."""
        with refusals(f"running {self._path} in TensorRT", _REMEDY):
            buffers = self._allocate(inputs)
            self._execute()

        def call(_buffers: dict[str, torch.Tensor] = buffers) -> None:  # keeps the bound memory alive
            self._execute()

        return call

    def close(self) -> None:
        """Release the engine and its device memory."""
        del self._context, self._engine

    def _names(self, mode: str) -> list[str]:
        import tensorrt

        names = [self._engine.get_tensor_name(index) for index in range(self._engine.num_io_tensors)]
        wanted = getattr(tensorrt.TensorIOMode, mode)
        return [name for name in names if self._engine.get_tensor_mode(name) == wanted]

    def _allocate(self, inputs: Sequence[np.ndarray]) -> dict[str, torch.Tensor]:
        """Allocate inputs and outputs on the device, and pass their addresses to the context."""
        buffers: dict[str, torch.Tensor] = {}
        for name, array in zip(self._names("INPUT"), inputs, strict=True):
            buffers[name] = torch.tensor(array, device=self.device)
            self._context.set_input_shape(name, tuple(array.shape))
        for name in self._names("OUTPUT"):
            dtype = _torch_dtype(self._engine.get_tensor_dtype(name))
            shape = tuple(self._context.get_tensor_shape(name))
            buffers[name] = torch.empty(shape, dtype=dtype, device=self.device)
        for name, buffer in buffers.items():
            self._context.set_tensor_address(name, buffer.data_ptr())
        torch.cuda.synchronize()  # the copies above ran on another stream
        return buffers

    def _execute(self) -> None:
        if not self._context.execute_async_v3(self._stream.cuda_stream):
            raise DeployError(f"TensorRT refused to run {self._path}: its log says why. {_REMEDY}")
        self._stream.synchronize()


def _build(path: Path, shapes: Sequence[Shape]) -> Any:
    """Parse `path` and build an engine for exactly `shapes`."""
    import tensorrt

    logger = tensorrt.Logger(tensorrt.Logger.ERROR)
    builder = tensorrt.Builder(logger)
    strongly_typed = 1 << int(tensorrt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    network = builder.create_network(strongly_typed)  # required in 10, the only kind in 11
    parser = tensorrt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(path)):
        reasons = "; ".join(str(parser.get_error(index)) for index in range(parser.num_errors))
        raise DeployError(f"TensorRT cannot read {path}: {reasons}. {_REMEDY}")
    if network.num_inputs != len(shapes):
        raise DeployError(f"{path} has {network.num_inputs} inputs, {len(shapes)} are given")
    config = builder.create_builder_config()
    config.clear_flag(tensorrt.BuilderFlag.TF32)  # TF32 rounds to 10 bits, so parity in float32 would fail
    profile = builder.create_optimization_profile()
    for index, shape in enumerate(shapes):
        profile.set_shape(network.get_input(index).name, shape, shape, shape)
    config.add_optimization_profile(profile)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise DeployError(f"TensorRT cannot build an engine of {path}: its log says why. {_REMEDY}")
    return tensorrt.Runtime(logger).deserialize_cuda_engine(plan)


def _torch_dtype(dtype: Any) -> torch.dtype:
    import tensorrt

    return torch.from_numpy(np.empty(0, tensorrt.nptype(dtype))).dtype


@final
class TensorRT(Backend):
    """TensorRT on the current CUDA device; `threads` is ignored."""

    name = "tensorrt"
    reads_modules = False
    package = "tensorrt"
    device = "cuda"

    def absence(self) -> str | None:
        """Return why TensorRT is not available."""
        reason = missing_library("tensorrt", "install it with `pip install tensorrt` on a machine with an NVIDIA GPU")
        if reason is None and not torch.cuda.is_available():
            reason = "PyTorch finds no CUDA device; TensorRT needs one, and a CUDA build of PyTorch"
        return reason

    def load(self, network: Network, shapes: Sequence[Shape], threads: int) -> Session:
        """Build an engine for exactly `shapes`, which takes seconds to minutes."""
        return TensorRTSession(onnx_file(network, self.name), shapes)
