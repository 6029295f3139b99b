"""Prunus: grow wide, ship narrow.

A network is read (`trace`) and shaped while it learns (`GroupLasso`); a budget decides (`Budget`, `select`), surgery
changes a copy (`apply`, `carry_`), and deployment measures it (`export_onnx`, `check_parity`, `benchmark`). `run` does
all of this from a recipe. Names are imported at first use, so `import prunus` is fast.
"""

import importlib
import random
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prunus.budget import Budget, select  # type: ignore[no-redef]  # also a module's name
    from prunus.deploy import BenchmarkSettings, Target, TargetMeter, benchmark, check_parity, export_onnx
    from prunus.errors import PrunusError
    from prunus.gate import Gate, compare
    from prunus.graph import ChannelGroups, trace
    from prunus.penalties import Combined, GroupLasso, NuclearNorm, Orthogonality, SparseGroupLasso
    from prunus.pipeline import Recipe, run  # type: ignore[no-redef]
    from prunus.shrink import Shrinker
    from prunus.surgery import (  # type: ignore[no-redef]
        Plan,
        apply,
        bypass,
        carry_,
        contract,
        decompose,
        expand,
        factorize,
        fuse,
        linearize,
        load,
        recalibrate,
        save,
    )
    from prunus.verify import check_removal

_HOME = {
    "BenchmarkSettings": "deploy",
    "Budget": "budget",
    "ChannelGroups": "graph",
    "Combined": "penalties",
    "Gate": "gate",
    "GroupLasso": "penalties",
    "NuclearNorm": "penalties",
    "Orthogonality": "penalties",
    "Plan": "surgery",
    "PrunusError": "errors",
    "Recipe": "pipeline",
    "Shrinker": "shrink",
    "SparseGroupLasso": "penalties",
    "Target": "deploy",
    "TargetMeter": "deploy",
    "apply": "surgery",
    "benchmark": "deploy",
    "bypass": "surgery",
    "carry_": "surgery",
    "check_parity": "deploy",
    "check_removal": "verify",
    "compare": "gate",
    "contract": "surgery",
    "decompose": "surgery",
    "expand": "surgery",
    "export_onnx": "deploy",
    "factorize": "surgery",
    "fuse": "surgery",
    "linearize": "surgery",
    "load": "surgery",
    "recalibrate": "surgery",
    "run": "pipeline",
    "save": "surgery",
    "select": "budget",
    "trace": "graph",
}

__all__ = [
    "BenchmarkSettings",
    "Budget",
    "ChannelGroups",
    "Combined",
    "Gate",
    "GroupLasso",
    "NuclearNorm",
    "Orthogonality",
    "Plan",
    "PrunusError",
    "Recipe",
    "Shrinker",
    "SparseGroupLasso",
    "Target",
    "TargetMeter",
    "apply",
    "benchmark",
    "bypass",
    "carry_",
    "check_parity",
    "check_removal",
    "compare",
    "contract",
    "decompose",
    "expand",
    "export_onnx",
    "factorize",
    "fuse",
    "linearize",
    "load",
    "recalibrate",
    "run",
    "save",
    "select",
    "trace",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return importlib.import_module("importlib.metadata").version("prunus")
    if name in (*_HOME.values(), "integrations"):  # prunus.surgery, ... without an explicit import
        return _imported(name)
    if name not in _HOME:
        raise AttributeError(f"module 'prunus' has no attribute {name!r}")
    return getattr(_imported(_HOME[name]), name)


def _imported(name: str) -> ModuleType:
    """Import a part of the package; libraries that draw random numbers when imported do not disturb the user's."""
    state = random.getstate()
    try:
        return importlib.import_module(f"prunus.{name}")
    finally:
        random.setstate(state)


def __dir__() -> list[str]:
    return __all__
