"""`Operator`: the schema of one of torch's operators: its arguments, those it writes into, whether it is a view."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from prunus.modules.tree import flat

# Operators that may return their input or a view of it without declaring it: dropout in evaluation, sums of one term.
UNDECLARED = frozenset(
    {"aten::dropout", "aten::feature_dropout", "aten::alpha_dropout", "aten::feature_alpha_dropout", "aten::einsum"}
)
TENSORS = ("Tensor", "Tensor[]", "Tensor?", "List[Tensor]", "Optional[Tensor]")


@dataclasses.dataclass(frozen=True, eq=False)
class Operator:
    """An operator's schema.

    Attributes:
        name: "namespace::operator", without the overload and the in-place underscore.
        target: the operator itself.
        positional: names of the arguments that may be given by position; torch's `self` is called `input`.
        keywords: names of the keyword-only arguments.
        defaults: the value of each argument that may be left out.
        writes: names of the arguments that are written into.
        is_view: whether an output may share the memory of the first argument, which is not written into.
        returns_list: whether it returns several tensors.
        returns_tensors: whether it returns tensors, rather than numbers.
        pointwise: whether it is element-wise.
        random: whether it draws random numbers.
        sized_by_values: whether the size of its output depends on values.
        takes_functions: whether its arguments are graphs that it runs (`torch.cond`); it then has no schema.
    """

    name: str
    target: Callable[..., object]
    positional: tuple[str, ...]
    keywords: tuple[str, ...]
    defaults: Mapping[str, object]
    writes: tuple[str, ...]
    is_view: bool
    returns_list: bool
    returns_tensors: bool
    pointwise: bool
    random: bool
    sized_by_values: bool
    takes_functions: bool = False

    def bound(self, args: Sequence[object], kwargs: Mapping[str, object]) -> dict[str, object]:
        """Return every argument by its name."""
        given = {**self.defaults, **dict(zip(self.positional, args, strict=False)), **kwargs}
        return {name: given[name] for name in (*self.positional, *self.keywords)}

    def written(self, args: Sequence[object], kwargs: Mapping[str, object]) -> list[Tensor]:
        """Return the tensors among the arguments that are written into."""
        if not self.writes:
            return []
        bound = self.bound(args, kwargs)
        return [each for each in flat([bound[name] for name in self.writes]) if isinstance(each, Tensor)]

    def call(self, args: Sequence[object], kwargs: Mapping[str, object]) -> object:
        """Run the operator."""
        return self.target(*args, **kwargs)

    def named(self, arguments: Mapping[str, object]) -> object:
        """Run the operator on arguments given by name."""
        return self.call([arguments[n] for n in self.positional], {n: arguments[n] for n in self.keywords})

    def branch(self, args: Sequence[Any]) -> object:
        """Run an operator that takes functions; of a `cond`, run the first branch."""
        return args[1](*args[3]) if self.name == "python::cond" else self.call(args, {})


@functools.cache  # there are few operators, each looked up often
def operator(target: Any) -> Operator:
    """Return the schema of a `torch.ops` overload: the only place that reads torch's `_schema`."""
    if not hasattr(target, "_schema"):
        name = f"python::{getattr(target, '__name__', target)}"
        return Operator(name, target, ("operands",), (), {}, (), False, False, True, False, False, False, True)
    schema, tags = target._schema, target.tags
    namespace, _, base = schema.name.partition("::")
    name = f"{namespace}::{base if base.startswith('__') else base.rstrip('_') or base}"
    arguments = {"input" if a.name == "self" else a.name: a for a in schema.arguments}
    writes = tuple(n for n, a in arguments.items() if a.alias_info is not None and a.alias_info.is_write)
    returned = [str(value.type) for value in schema.returns]
    views = any(v.alias_info is not None and not v.alias_info.is_write for v in schema.returns)
    return Operator(
        name=name,
        target=target,
        positional=tuple(n for n, a in arguments.items() if not a.kwarg_only),
        keywords=tuple(n for n, a in arguments.items() if a.kwarg_only),
        defaults={n: a.default_value for n, a in arguments.items() if a.has_default_value()},
        writes=writes,
        is_view=name in UNDECLARED or views,
        returns_list=len(returned) > 1 or returned == ["List[Tensor]"],
        returns_tensors=all(kind in TENSORS for kind in returned),
        pointwise=torch.Tag.pointwise in tags,
        random=torch.Tag.nondeterministic_seeded in tags,
        sized_by_values=torch.Tag.dynamic_output_shape in tags,
    )
