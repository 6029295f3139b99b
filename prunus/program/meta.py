"""Run one operator: on the meta device, where tensors have shapes but no values, or with values."""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias, TypeVar

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from prunus.modules.tree import replaced
from prunus.program.operators import Operator, operator

META = torch.device("meta")
Args: TypeAlias = Sequence[Any]
Settings: TypeAlias = Mapping[str, Any]
T = TypeVar("T")
MOST_MADE = 1 << 14
_MADE: dict[Hashable, object] = {}  # specs of operators' outputs, by the operator and its arguments
RECURRENT = frozenset(getattr(torch.ops.aten, name).input for name in ("lstm", "gru", "rnn_tanh", "rnn_relu"))


class ValueDependenceError(RuntimeError):
    """The code asks for the values of data."""


class OnMeta:
    """Runs operators on the meta device; constants among their arguments have stand-ins there."""

    def __init__(self) -> None:
        self._stand_ins: dict[int, tuple[Tensor, Tensor]] = {}  # (real tensor, meta tensor) by id of the real tensor

    def run(self, called: Operator, args: Args, kwargs: Settings, tensors: list[Tensor]) -> object:
        """Run an operator and return its outputs; a real tensor that is written into is returned itself."""
        if called.target in RECURRENT and len(args) == 9:
            return _recurrent(args)
        settings = {**kwargs, "device": META} if "device" in called.keywords and not tensors else kwargs
        inference = all(each.is_meta for each in tensors)  # constants, and so their views, are not inference tensors
        with torch.inference_mode(mode=inference), torch.no_grad():
            real = {id(self._stand_in(each)): each for each in tensors if not each.is_meta}
            given, named = (replaced(on(META, part), Tensor, self._stand_in) for part in (args, dict(settings)))
            result = _like_before(called, given, named)
        return replaced(result, Tensor, lambda tensor: real.get(id(tensor), tensor)) if real else result

    def _stand_in(self, tensor: Tensor) -> Tensor:
        if tensor.is_meta:
            return tensor
        _, found = self._stand_ins.get(id(tensor), (None, None))
        if found is None or found.shape != tensor.shape:
            shared = any(size > 1 and not stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
            stride = torch.empty(tensor.shape, device=META).stride() if shared else tensor.stride()
            found = torch.empty_strided(tensor.size(), stride, dtype=tensor.dtype, device=META)
            self._stand_ins[id(tensor)] = tensor, found
        return found


def _recurrent(args: Args) -> tuple[Tensor, ...]:
    """Return empty outputs of a recurrent operator, which torch would decompose into the steps of the sequence: the
    states of all steps, [..., D * H], and the last states.

    D is 2 where the sequence is read in both directions. `args` are the operator's: the sequence, the first states (two
    for an LSTM), the weights, and its settings.
    """
    sequence, first, bidirectional = args[0], args[1], args[7]
    states = list(first) if isinstance(first, list | tuple) else [first]
    width = states[0].shape[-1] * (2 if bidirectional else 1)
    return sequence.new_empty((*sequence.shape[:-1], width)), *(state.new_empty(state.shape) for state in states)


class Spec(NamedTuple):
    """The description of a tensor on the meta device."""

    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype

    @classmethod
    def of(cls, tensor: Tensor) -> "Spec":
        """Return the description of `tensor`."""
        return cls(tuple(tensor.shape), tensor.stride(), tensor.dtype)

    def tensor(self) -> Tensor:
        """Return a meta tensor of this description."""
        return torch.empty_strided(self.shape, self.stride, dtype=self.dtype, device=META)


def _like_before(called: Operator, args: Args, kwargs: Settings) -> object:
    """Run an operator, or return outputs like those of an earlier call on arguments of the same shapes: layers repeat
    within a network, and across its modes and widths."""
    if called.is_view or called.writes:
        return called.call(args, kwargs)
    key = called, _key(args), _key(kwargs)
    if key not in _MADE:
        if len(_MADE) > MOST_MADE:
            _MADE.clear()
        _MADE[key] = replaced(called.call(args, kwargs), Tensor, Spec.of)
    return replaced(_MADE[key], Spec, Spec.tensor)


def _key(value: object) -> Hashable:
    """Return an argument as a dictionary key: numbers with their types, since 1, 1.0 and True are equal."""
    if isinstance(value, Tensor):
        return Spec.of(value)
    if isinstance(value, list | tuple):
        return tuple(map(_key, value))
    if isinstance(value, Mapping):
        return tuple((name, _key(item)) for name, item in value.items())
    return type(value), value


def run_with_values(called: Operator, args: Args, kwargs: Settings, tensors: list[Tensor]) -> object:
    """Run an operator on real tensors and return its outputs, whose sizes may not depend on values."""
    with _FixedSizes():  # type: ignore[no-untyped-call]
        return called.call(args, kwargs)


class _FixedSizes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Refuses operators, inside a composite one, whose output size depends on values."""

    def __torch_dispatch__(
        self, func: object, types: object, args: Args = (), kwargs: Settings | None = None
    ) -> object:
        called = operator(func)
        if called.sized_by_values and "index" not in called.name:
            raise ValueDependenceError(f"the output size of {called.name} depends on values")
        return called.call(args, kwargs or {})


def on(device: torch.device, value: T) -> T:
    """Return arguments with the meta device replaced by `device`; if `device` is meta, all devices are replaced."""
    placed: T = replaced(value, torch.device, lambda given: device if META in (device, given) else given)
    return placed
