"""Eager PyTorch as a backend, on the module's own device: the reference of every comparison."""

from collections.abc import Callable, Sequence
from typing import final

import numpy as np
import torch
from torch import nn

from prunus.backends.interface import Backend, Network, Session, Shape, refusals
from prunus.backends.signature import named_outputs
from prunus.errors import DeployError
from prunus.modules.copying import copied
from prunus.modules.tensors import device_of

_REMEDY = "Give inputs that the network's forward takes"


@final
class TorchSession(Session):
    """A copy of a module in evaluation mode; a copy, since the module's code may cache results or count its calls.

    `close` restores PyTorch's number of threads. This is a global setting, so sessions must be closed last in, first
    out.
    """

    def __init__(self, model: nn.Module, threads: int) -> None:
        self._model = copied(model, isolated=True)
        self._device = device_of(model)
        self.device = str(self._device)
        self.precision = _precision(model)
        self._threads_before = torch.get_num_threads()
        for module in self._model.modules():
            module.training = False
        torch.set_num_threads(threads)

    def run(self, inputs: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
        """Run once; see `Session.run`."""
        with refusals(f"running {type(self._model).__name__} in PyTorch", _REMEDY), torch.inference_mode():
            outputs = named_outputs(self._model(*self._place(inputs)))
            known = {name: each.float() if each.dtype == torch.bfloat16 else each for name, each in outputs.items()}
            return {name: tensor.cpu().numpy() for name, tensor in known.items()}  # numpy has no bfloat16

    def bind(self, inputs: Sequence[np.ndarray]) -> Callable[[], None]:
        """Bind `inputs`; see `Session.bind`. On a GPU the call waits for the device."""
        self.run(inputs)
        model, device, placed = self._model, self._device, self._place(inputs)

        def call() -> None:
            with torch.inference_mode():
                model(*placed)
            if device.type == "cuda":
                torch.cuda.synchronize(device)

        return call

    def close(self) -> None:
        """Restore PyTorch's number of threads."""
        torch.set_num_threads(self._threads_before)

    def _place(self, inputs: Sequence[np.ndarray]) -> list[torch.Tensor]:
        # torch.tensor copies; torch.from_numpy would warn about read-only arrays.
        return [torch.tensor(array, device=self._device) for array in inputs]


def _precision(model: nn.Module) -> str:
    for parameter in model.parameters():
        if parameter.is_floating_point():
            return str(parameter.dtype).removeprefix("torch.")
    return "float32"


@final
class Torch(Backend):
    """PyTorch, eager, in inference mode."""

    name = "torch"
    reads_modules = True
    package = "torch"

    def absence(self) -> str | None:
        """Return None: PyTorch is always available."""
        return None

    def load(self, network: Network, shapes: Sequence[Shape], threads: int) -> Session:
        """Load a module; see `Backend.load`."""
        if not isinstance(network, nn.Module):
            raise DeployError(
                f"PyTorch does not run ONNX files: {network} is one; give the nn.Module, or choose another backend"
            )
        return TorchSession(network, threads)
