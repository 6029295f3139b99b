"""Choose layers of a network by patterns over their paths and rules on their kernels."""

import fnmatch
import operator
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from torch import nn

from prunus.errors import EditError
from prunus.modules.kinds import kind_of
from prunus.modules.paths import near_paths
from prunus.surgery.layers import refusal, still_expanded

Layers = str | Sequence[str]
_RULE = re.compile(r"k\s*(>=|<=|==|=|>|<)\s*(\d+)")
_COMPARE: dict[str, Callable[[int, int], bool]] = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
    "=": operator.eq,
    "==": operator.eq,
}


def choose(
    model: nn.Module, layers: Layers, skip_first: int, unfit: Callable[[Any], str | None]
) -> list[tuple[str, Any]]:
    """Return (path, module) of the layers of `model` that `layers` names and that are fit, in the network's order.

    Args:
        model: any network.
        layers: one or several patterns: a glob over dotted paths ("encoder.*", "*.conv1"; `*` also matches dots), or a
            rule on the largest side of a convolution's kernel ("k>1", "k>=5", "k=3"); a leading "!" excludes matches.
        skip_first: number of matching layers to leave out, counted from the input.
        unfit: returns why a module cannot be used, None if it can. A layer named by its exact path must be fit; a layer
            matched by a glob or a rule is skipped if it is not.

    Raises:
        EditError: a pattern matches no layer (similar paths are named), a layer named by its path is unfit, or all are.
    """
    if isinstance(model, nn.parallel.DistributedDataParallel | nn.DataParallel):
        raise EditError(f"the model is wrapped in {type(model).__name__}; pass what is inside, model.module")
    if type(skip_first) is not int or skip_first < 0:
        raise EditError(f"skip_first is a number of layers from 0, not {skip_first!r}")
    known = {path: module for path, module in model.named_modules() if kind_of(module) is not None}
    patterns = patterns_of(layers)
    left_out = {path for text in patterns if text[0] == "!" for path in _matching(model, text[1:], known)}
    chosen = {path for text in patterns if text[0] != "!" for path in _matching(model, text, known)}
    ordered = [path for path in known if path in chosen - left_out][skip_first:]
    reasons = {
        path: refusal(model, path, known[path]) or unfit(known[path]) or still_expanded(model, path) for path in ordered
    }
    for path, reason in reasons.items():
        if reason and path in patterns:
            raise EditError(f"{path}: {reason}")
    fit = [(path, known[path]) for path, reason in reasons.items() if reason is None]
    if not fit:
        first = next((f"; {path}: {reason}" for path, reason in reasons.items()), ": all are left out")
        raise EditError(f"{', '.join(patterns)} leaves no layer to work on{first}")
    return fit


def patterns_of(layers: Layers) -> list[str]:
    """Return the patterns as a list; if all of them exclude, "*" comes first."""
    patterns = [layers] if isinstance(layers, str) else list(layers)
    if not patterns or not all(isinstance(text, str) and text.strip("! ") for text in patterns):
        raise EditError(f"layers are named by patterns such as 'encoder.*' or 'k>1', not {layers!r}")
    if all(text[0] == "!" for text in patterns):
        return ["*", *patterns]
    return patterns


def _matching(model: nn.Module, text: str, known: dict[str, Any]) -> list[str]:
    if rule := _RULE.fullmatch(text.strip()):
        compare, size = _COMPARE[rule[1]], int(rule[2])
        sides = {path: max(module.kernel_size) for path, module in known.items() if hasattr(module, "kernel_size")}
        found = [path for path, side in sides.items() if compare(side, size)]
        if not found:
            raise EditError(
                f"no convolution of {type(model).__name__} has {text}; sides are {sorted(set(sides.values()))}"
            )
        return found
    found = fnmatch.filter(known, text)
    if not found:
        raise EditError(
            f"{text!r} matches no convolution or linear layer of {type(model).__name__}{_hint(model, text, known)}"
        )
    return found


def _hint(model: nn.Module, text: str, known: Iterable[str]) -> str:
    inside = [path for path in known if path.startswith(f"{text}.")]
    if inside:
        return f"; layers in it are {', '.join(inside[:3])}, ...: write {text}.*"
    return near_paths(text, known)
