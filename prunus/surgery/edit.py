"""An edit is data: what changes in a network, by dotted paths, in JSON and back; `apply` does it to a copy."""

import abc
import contextlib
import dataclasses
import functools
import hashlib
import json
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any, Self, Union

from torch import Tensor, nn

from prunus.decoding import from_json
from prunus.errors import EditError, PrunusError
from prunus.surgery.factors import replaced
from prunus.surgery.growth import check_growth

FORMAT = 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Edit(abc.ABC):
    """One change of a network. A kind of edit is one file: a frozen dataclass of plain data with these methods."""

    @property
    @abc.abstractmethod
    def exact(self) -> bool:
        """Whether the function is kept up to rounding, where the edit's own conditions hold."""

    @abc.abstractmethod
    def apply(self, model: nn.Module) -> nn.Module:
        """Return a changed copy of `model`; raise `EditError` with `model` untouched."""

    def successors(self, model: nn.Module) -> Mapping[str, nn.Module] | None:
        """Return the modules of `model` that others take the place of, by path, if the edit does nothing else.

        Edits of this kind that follow each other share one copy of the network. None where an edit does more.
        """
        return None

    def num_created(self) -> int:
        """Return how many weights the edit makes anew, where they may be more than the network has."""
        return 0

    @abc.abstractmethod
    def summary(self) -> str:
        """Return one line for a reader."""

    @abc.abstractmethod
    def carry(self, path: str, tensor: Tensor) -> Tensor | None:
        """Return what a tensor shaped like the parameter at `path` becomes; None where the edit replaces the
        parameter by another."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """A sequence of edits, each for the network that the one before leaves.

    Attributes:
        edits: in the order in which they are done.
    """

    edits: tuple[Edit, ...] = ()

    def __len__(self) -> int:
        """Count the edits."""
        return len(self.edits)

    def __iter__(self) -> Iterator[Edit]:
        """Iterate over the edits."""
        return iter(self.edits)

    def __add__(self, other: "Plan") -> "Plan":
        """Return the plan that does this one, then `other`."""
        return Plan(self.edits + other.edits)

    def summary(self) -> str:
        """Return a line for each edit."""
        return "\n".join(edit.summary() for edit in self.edits) or "nothing to change"

    __str__ = summary

    def to_json(self) -> str:
        """Return the plan as JSON."""
        edits = [{"edit": type(edit).__name__, **dataclasses.asdict(edit)} for edit in self.edits]
        return json.dumps({"format": FORMAT, "edits": edits})

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Return the plan written in `text`.

        Raises:
            EditError: not JSON, an unknown format or edit, a missing or unknown field, a value of the wrong type.
        """
        try:
            data = from_json(text)
        except (ValueError, TypeError) as error:
            raise EditError(f"a plan is JSON, and this is not: {error}") from error
        known = isinstance(data, dict) and type(data.get("format")) is int and data["format"] == FORMAT
        if not known or not isinstance(data.get("edits"), list):
            raise EditError(f'a plan looks like {{"format": {FORMAT}, "edits": [...]}}; got {text[:80]!r}')
        return cls(tuple(_edit(item, number) for number, item in enumerate(data["edits"])))

    def fingerprint(self) -> str:
        """Return a hash of the plan, the same for equal plans on any machine."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()[:16]


def apply(plan: Plan | Edit, model: nn.Module) -> nn.Module:
    """Return a copy of `model` with the edits of `plan` done in order; `model` stays as it is.

    In the copy every module keeps its mode and its hooks, every parameter its `requires_grad`, dtype, device and memory
    format, and tied parameters stay tied. What takes a layer's place is given the layer's, an `nn.Identity` its mode
    alone. What an optimizer holds follows by `carry_`.

    Raises:
        EditError: an edit does not fit; its number and kind are named.
    """
    if not isinstance(plan, Plan | Edit):
        raise EditError(f"apply takes a plan or an edit, got {type(plan).__name__}; Plan.from_json reads JSON")
    if not isinstance(model, nn.Module):
        raise EditError(f"apply takes a torch.nn.Module, got {type(model).__name__}")
    edits = (plan,) if isinstance(plan, Edit) else plan.edits
    check_growth(edits, model)
    result, pending = model, dict[str, nn.Module]()
    for number, edit in enumerate(edits):
        with _named(number, edit):
            new = _independent(edit, result, pending)
            if new is None and pending:
                result, pending = _copied(result, pending), {}
                new = edit.successors(result)
            if new is None:
                result = edit.apply(result)
            else:
                pending |= new
    return _copied(result, pending) if pending or not edits else result


@contextlib.contextmanager
def _named(number: int, edit: Edit) -> Iterator[None]:
    """Say which edit an error comes from."""
    try:
        yield
    except EditError as error:
        raise EditError(f"edit {number} ({type(edit).__name__}): {error}") from error
    except (PrunusError, MemoryError):
        raise
    except Exception as error:
        raise EditError(f"edit {number} ({type(edit).__name__}) failed: {type(error).__name__}: {error}") from error


def _independent(edit: Edit, model: nn.Module, pending: Mapping[str, nn.Module]) -> Mapping[str, nn.Module] | None:
    """Return an edit's successors if it does not need the `pending` ones in place first, None if it may."""
    try:
        new = edit.successors(model)
    except EditError:
        if not pending:
            raise
        return None
    paths = [f"{path}." for path in new or ()]
    touched = any(a.startswith(b) or b.startswith(a) for a in paths for b in (f"{path}." for path in pending))
    return None if touched else new


def _copied(model: nn.Module, new: Mapping[str, nn.Module]) -> nn.Module:
    try:
        return replaced(model, new)
    except (RuntimeError, TypeError) as error:  # torch.nn.utils.weight_norm, open files, ...
        advice = (
            "; a hook of torch.nn.utils.weight_norm or .prune keeps a weight that it computes: take it away "
            "(remove_weight_norm, prune.remove), or use torch.nn.utils.parametrizations, which are followed"
            if "explicitly by the user" in str(error)
            else ""
        )
        raise EditError(f"{type(model).__name__} cannot be copied, so it cannot be edited: {error}{advice}") from error


def edit_types() -> dict[str, type[Edit]]:
    """Return every kind of edit by its name in JSON."""
    return {cls.__name__: cls for cls in Edit.__subclasses__()}


def _edit(item: Any, number: int) -> Edit:
    place = f"edit {number}"
    if not isinstance(item, dict) or not isinstance(item.get("edit"), str):
        raise EditError(f'{place}: an edit is an object with a field "edit"; got {item!r:.80}')
    known = edit_types()
    name = item["edit"]
    if name not in known:
        raise EditError(f"{place}: unknown edit {name!r}; known are {', '.join(sorted(known))}")
    result = typed(known[name], {key: value for key, value in item.items() if key != "edit"}, f"{place} ({name})")
    assert isinstance(result, Edit)
    return result


def typed(hint: Any, value: Any, place: str) -> Any:
    """Return `value`, as JSON has it, as the annotation `hint` has it; refuse what does not fit."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return _fields(hint, value, place)
    if origin is tuple and isinstance(value, list):
        hints = [arguments[0]] * len(value) if len(arguments) == 2 and arguments[1] is ... else arguments
        if len(hints) != len(value):
            raise EditError(f"{place}: {len(hints)} values are expected, got {len(value)}")
        return tuple(typed(h, v, f"{place}[{i}]") for i, (h, v) in enumerate(zip(hints, value, strict=True)))
    if origin is list and isinstance(value, list):
        return [typed(arguments[0], item, f"{place}[{index}]") for index, item in enumerate(value)]
    if hint is Any:
        return value
    if origin is dict and isinstance(value, dict):
        return {key: typed(arguments[1], item, f"{place}[{key!r}]") for key, item in value.items()}
    if origin in (Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        return typed(next(a for a in arguments if a is not type(None)), value, place)
    if hint is float and type(value) is int:
        return float(value)
    if type(value) is int and not -(2**63) <= value < 2**63:
        raise EditError(f"{place}: {value} is beyond 64 bits")
    if origin is not None or type(value) is not hint:
        expected = "a list" if origin is tuple else getattr(hint, "__name__", str(hint))
        raise EditError(f"{place}: {value!r:.60} is not {expected}")
    return value


def _fields(cls: type, value: Any, place: str) -> Any:
    if not isinstance(value, dict):
        raise EditError(f"{place}: {value!r:.60} is not an object")
    names = {field.name for field in dataclasses.fields(cls)}
    absent = dataclasses.MISSING
    required = {f.name for f in dataclasses.fields(cls) if f.default is absent and f.default_factory is absent}
    if unknown := sorted(value.keys() - names):
        raise EditError(f"{place}: unknown field {unknown[0]!r}; known are {', '.join(sorted(names))}")
    if missing := sorted(required - value.keys()):
        raise EditError(f"{place}: the field {missing[0]!r} is missing")
    hints = _hints(cls)
    return cls(**{name: typed(hints[name], item, f"{place}.{name}") for name, item in value.items()})


@functools.cache
def _hints(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls)
