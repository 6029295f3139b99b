"""A plan: a sequence of edits, written as JSON, read back, and applied to a copy of a network."""

import contextlib
import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any, Self

from torch import nn

from prunus.decoding import from_json
from prunus.errors import EditError, PrunusError
from prunus.modules.copying import copied, replaced
from prunus.modules.defaults import whatever_device
from prunus.modules.modes import keep_anew_
from prunus.records.typed import typed
from prunus.surgery.edit import Edit, edit_types
from prunus.surgery.growth import check_growth
from prunus.surgery.layers import ReplaceModules

FORMAT = 1


@dataclasses.dataclass(frozen=True)
class Plan:
    """A sequence of edits, each for the network that the previous one returns.

    Attributes:
        edits: the edits in the order of application.
        notes: remarks for the reader, shown by `summary` and not part of the JSON.
    """

    edits: tuple[Edit, ...] = ()
    notes: tuple[str, ...] = dataclasses.field(default=(), compare=False)

    def __len__(self) -> int:
        """Count the edits."""
        return len(self.edits)

    def __iter__(self) -> Iterator[Edit]:
        """Iterate over the edits."""
        return iter(self.edits)

    def __add__(self, other: "Plan") -> "Plan":
        """Return the plan that applies this one, then `other`."""
        return Plan(self.edits + other.edits, (*self.notes, *other.notes))

    def summary(self) -> str:
        """Return one line per edit and note."""
        edits = [edit.summary() for edit in self.edits] or ["nothing to change"]
        return "\n".join((*edits, *self.notes))

    __str__ = summary

    def to_json(self) -> str:
        """Return the plan as JSON."""
        edits = [{"edit": edit.edit_name, **dataclasses.asdict(edit)} for edit in self.edits]
        return json.dumps({"format": FORMAT, "edits": edits})

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Return the plan written in `text`.

        Raises:
            EditError: `text` is not JSON, or has an unknown format or edit, a wrong field, or a value of a wrong type.
        """
        try:
            data = from_json(text)
        except (ValueError, TypeError) as error:
            raise EditError(f"a plan is JSON, and this is not: {error}") from error
        known = isinstance(data, dict) and type(data.get("format")) is int and data["format"] == FORMAT
        if not known or not isinstance(data.get("edits"), list):
            raise EditError(f'a plan looks like {{"format": {FORMAT}, "edits": [...]}}; got {text[:80]!r}')
        return cls(tuple(_edit(item, f"edit {number}") for number, item in enumerate(data["edits"])))

    def fingerprint(self) -> str:
        """Return a hash of the plan, the same for equal plans on any machine."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()[:16]


def _edit(item: Any, place: str) -> Edit:
    if not isinstance(item, dict) or not isinstance(item.get("edit"), str):
        raise EditError(f'{place}: an edit is an object with a field "edit"; got {item!r:.80}')
    known, name = edit_types(), item["edit"]
    if name not in known:
        raise EditError(
            f"{place}: unknown edit {name!r}; known: {', '.join(known)}; import the module that defines one of your "
            "own first"
        )
    try:
        edit: Edit = typed(known[name], {key: item[key] for key in item if key != "edit"}, f"{place} ({name})")
    except ValueError as error:
        raise EditError(str(error)) from error
    return edit


@whatever_device
def apply(plan: Plan | Edit, model: nn.Module) -> nn.Module:
    """Return a copy of `model` with the edits of `plan` applied in order; `model` is not changed.

    In the copy every module keeps its mode and its hooks, every parameter its `requires_grad`, dtype, device and memory
    format, and tied parameters stay tied. Modules that replace a layer get the layer's; an `nn.Identity` gets only its
    mode. Use `carry_` for the optimizer.

    Raises:
        EditError: an edit does not fit; the message names its number and kind.
    """
    if not isinstance(plan, Plan | Edit):
        raise EditError(f"apply takes a plan or an edit, got {type(plan).__name__}; Plan.from_json reads JSON")
    if not isinstance(model, nn.Module):
        raise EditError(f"apply takes a torch.nn.Module, got {type(model).__name__}")
    edits = (plan,) if isinstance(plan, Edit) else plan.edits
    check_growth(edits, model)
    # Replacements wait in `pending`, so that one copy serves many of them, until an edit needs them in place.
    result, pending = model, dict[str, nn.Module]()
    for number, edit in enumerate(edits):
        with _named(number, edit):
            new = _independent(edit, result, pending)
            if new is None and pending:
                result, pending = replaced(result, pending), {}
            if new is not None:
                pending |= new
            elif isinstance(edit, ReplaceModules):
                pending = dict(edit.successors(result))
            else:
                result = edit.apply(result)
    result = replaced(result, pending) if pending else result if edits else copied(model)
    keep_anew_(result)
    return result


@contextlib.contextmanager
def _named(number: int, edit: Edit) -> Iterator[None]:
    """Add the number and the name of the edit to errors that it raises."""
    try:
        yield
    except EditError as error:
        raise EditError(f"edit {number} ({edit.edit_name}): {error}") from error
    except (PrunusError, MemoryError):
        raise
    except Exception as error:
        raise EditError(f"edit {number} ({edit.edit_name}) failed: {type(error).__name__}: {error}") from error


def _independent(edit: Edit, model: nn.Module, pending: Mapping[str, nn.Module]) -> Mapping[str, nn.Module] | None:
    """Return an edit's successors if it only replaces modules and does not need the `pending` ones in place first."""
    if not isinstance(edit, ReplaceModules):
        return None
    try:
        new = edit.successors(model)
    except EditError:
        if not pending:
            raise
        return None  # it may name a module that is still pending
    paths = [f"{path}." for path in new]
    touched = any(a.startswith(b) or b.startswith(a) for a in paths for b in (f"{path}." for path in pending))
    return None if touched else new
