"""Operators that make tensors from nothing, or from another tensor's shape."""

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from prunus.graph.call import Call
from prunus.graph.labels import Axis, Label, held_once
from prunus.graph.rules.table import rule

STRIDED = "aten::as_strided"  # reads memory as it lies, which constants held once do not keep


@rule("zeros_like", "ones_like", "full_like", "empty_like", "rand_like", "randn_like", "bernoulli")
def like(call: Call) -> Label:
    """A tensor as wide as another: it holds the same channels, zero only where the operator writes zeros."""
    model: Label = call.args[0]
    source = 0 if call.name.endswith("zeros_like") else call.number
    axes = {dim: Axis(axis.ids, torch.full_like(axis.source, source)) for dim, axis in model.axes.items()}
    return Label(call.shapes[0], axes)


@rule(
    "zeros",
    "ones",
    "full",
    "empty",
    "arange",
    "linspace",
    "rand",
    "randn",
    "eye",
    "scalar_tensor",
    "randperm",
)
@rule("new_zeros", "new_ones", "new_full", "new_empty", "tril_indices", "triu_indices", "meshgrid", "randint")
def constant(call: Call) -> Any:
    """A tensor of a fixed size; its values are kept where they follow from numbers alone (index tables)."""
    if call.name.startswith(("aten::rand", "aten::empty", "aten::new_empty")):
        return call.plain()
    dtypes = call.dtypes
    call = dataclasses.replace(call, kwargs={**call.kwargs, "device": "cpu"})
    values = call.run(lambda label: torch.empty(0, dtype=dtypes[id(label)]))[0]
    return Label.constant(values) if isinstance(values, torch.Tensor) else call.plain()


def folded(call: Call) -> Any:
    """Return the labels of what an operator makes of constants alone (index tables), None where it is given others."""
    labels = call.labels
    if not labels or any(label.data is None for label in labels) or "rand" in call.name or call.name == STRIDED:
        return None
    parts = _alone(call)
    if not parts or not all(isinstance(part, Tensor) for part in parts):
        return None
    return call.outputs([Label.constant(part) for part in parts])


def _alone(call: Call) -> list[Any]:
    """Run an operator on constants; where it takes each element alone, on those that differ. Nothing if it fails."""
    if call.target._schema.is_mutable:
        return _run(call, Tensor.clone)
    if torch.Tag.pointwise in call.target.tags:
        return [part.expand(call.shapes[0]) for part in _run(call, held_once)]
    return _run(call, Tensor.detach) or _run(call, Tensor.contiguous)  # a view may ask how they lie


def _run(call: Call, form: Callable[[Any], Tensor]) -> list[Any]:
    try:
        return call.run(lambda label: form(label.data))
    except (RuntimeError, TypeError):  # another device, a value that is not there yet
        return []


@rule("sym_size", "sym_numel", "_assert_tensor_metadata", "_assert_async", "item", "_local_scalar_dense")
def nothing(call: Call) -> Any:
    """Reads no channel's value."""
    return call.plain() if call.shapes else None
