"""Prunus: grow wide, ship narrow.

A network is read (`trace`), shaped while it learns (`GroupLasso`), a budget decides (`Budget`, `select`), surgery
changes a copy (`apply`, `carry_`), deployment measures it (`export_onnx`, `check_parity`, `benchmark`). `run` does
the whole path from a recipe. Names are imported at their first use, so that `import prunus` is quick.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prunus.budget import Budget, check_removal, select  # type: ignore[no-redef]  # also a module's name
    from prunus.deploy import benchmark, check_parity, export_onnx
    from prunus.errors import PrunusError
    from prunus.graph import ChannelGroups, trace
    from prunus.penalties import GroupLasso, NuclearNorm, Orthogonality, SparseGroupLasso
    from prunus.pipeline import Recipe, run  # type: ignore[no-redef]
    from prunus.surgery import (  # type: ignore[no-redef]
        Plan,
        apply,
        carry_,
        contract,
        decompose,
        expand,
        factorize,
        fuse,
        load,
        save,
    )

_HOME = {
    "Budget": "budget",
    "ChannelGroups": "graph",
    "GroupLasso": "penalties",
    "NuclearNorm": "penalties",
    "Orthogonality": "penalties",
    "Plan": "surgery",
    "PrunusError": "errors",
    "Recipe": "pipeline",
    "SparseGroupLasso": "penalties",
    "apply": "surgery",
    "benchmark": "deploy",
    "carry_": "surgery",
    "check_parity": "deploy",
    "check_removal": "budget",
    "contract": "surgery",
    "decompose": "surgery",
    "expand": "surgery",
    "export_onnx": "deploy",
    "factorize": "surgery",
    "fuse": "surgery",
    "load": "surgery",
    "run": "pipeline",
    "save": "surgery",
    "select": "budget",
    "trace": "graph",
}

__all__ = [
    "Budget",
    "ChannelGroups",
    "GroupLasso",
    "NuclearNorm",
    "Orthogonality",
    "Plan",
    "PrunusError",
    "Recipe",
    "SparseGroupLasso",
    "apply",
    "benchmark",
    "carry_",
    "check_parity",
    "check_removal",
    "contract",
    "decompose",
    "expand",
    "export_onnx",
    "factorize",
    "fuse",
    "load",
    "run",
    "save",
    "select",
    "trace",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'prunus' has no attribute {name!r}")
    return getattr(importlib.import_module(f"prunus.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
