"""Functions of torch that bypass dispatch modes: they make constants from Python numbers, or return values."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from prunus.program.meta import ValueDependenceError
from prunus.program.recorder import OperationRecorder

INDEXING = frozenset({"__getitem__", "__setitem__"})
MAKERS = frozenset({"tensor", "as_tensor", "asarray"})
ESCAPES = frozenset({"tolist", "numpy", "__array__", "__dlpack__", "data_ptr"})


class Functions(TorchFunctionMode):
    """Makes constants on the network's device rather than on the device of data; refuses to return data's values."""

    def __init__(self, recorder: OperationRecorder) -> None:
        super().__init__()
        self.recorder = recorder

    def __torch_function__(
        self,
        func: Callable[..., object],
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> object:
        name, settings, device = getattr(func, "__name__", ""), kwargs or {}, self.recorder.device
        if name in ESCAPES and isinstance(args[0], Tensor) and self.recorder.is_data(args[0]):
            raise ValueDependenceError(f"Tensor.{name} asks for values that depend on the network's input")
        if name == "__set__" and any(isinstance(each, Tensor) and self.recorder.is_data(each) for each in args):
            raise ValueDependenceError("x.data = y replaces a tensor's memory: write x = y, or x.copy_(y)")
        if name == "new_tensor":
            return torch.tensor(args[1], dtype=settings.get("dtype", args[0].dtype), device=device)
        if name in INDEXING:
            index = args[1] if isinstance(args[1], tuple) else (args[1],)
            args = (args[0], tuple(self._constant(each) for each in index), *args[2:])
        if name in MAKERS and settings.get("device") is not None:
            settings = {**settings, "device": device}
        return func(*args, **settings)

    def _constant(self, index: object) -> object:
        """Return a list of positions as a constant: torch would make it on the device of data, without values."""
        if not isinstance(index, list | range | np.ndarray):
            return index
        return torch.as_tensor(np.asarray(index), device=self.recorder.device)
