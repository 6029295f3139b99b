"""Choose layers by pattern or rule, name them in an edit, and find them again."""

import dataclasses
import difflib
import fnmatch
import operator
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from torch import nn
from torch.nn.parameter import is_lazy
from torch.nn.utils.parametrize import is_parametrized

from prunus.errors import EditError
from prunus.surgery.factors import Factors
from prunus.surgery.filters import LINEAR_LAYERS

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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Layer:
    """A layer as an edit names it: a plan for another network is noticed."""

    path: str
    kind: str  # torch's name: "Conv2d", ...
    shape: tuple[int, ...]  # of the weight
    groups: int = 1

    def __post_init__(self) -> None:
        """Refuse what no layer is: plans come from files."""
        ranks = {kind.__name__: 2 if kind is nn.Linear else 2 + int(kind.__name__[-2]) for kind in LINEAR_LAYERS}
        if self.kind not in ranks or ranks[self.kind] != len(self.shape) or min(self.shape) < 1 or self.groups < 1:
            raise EditError(
                f"{self.path}: no layer is a {self.kind} of shape {list(self.shape)} in {self.groups} groups"
            )

    @property
    def sizes(self) -> tuple[int, int, tuple[int, ...]]:
        """Return (out / groups, in / groups, kernel)."""
        first, second, *kernel = self.shape
        if self.kind.startswith("ConvTranspose"):
            return second, first // self.groups, tuple(kernel)
        return first // self.groups, second, tuple(kernel)

    def find(self, model: nn.Module) -> Any:
        """Return the layer in `model`.

        Raises:
            EditError: there is none at the path, it is of another kind or shape, or cannot be replaced.
        """
        try:
            module: Any = model.get_submodule(self.path)
        except AttributeError as error:
            near = _near(self.path, (path for path, _ in model.named_modules()))
            raise EditError(f"{self.path}: {type(model).__name__} has no such module{near}") from error
        if kind_of(module) != self.kind:
            raise EditError(
                f"{self.path} is a {type(module).__name__}, the plan is for a {self.kind}: it was made for another "
                "network, or was applied already"
            )
        if reason := refusal(model, self.path, module):
            raise EditError(f"{self.path}: {reason}")
        found, groups = tuple(module.weight.shape), groups_of(module)
        if found != self.shape or groups != self.groups:
            raise EditError(
                f"{self.path}.weight has shape {list(found)} in {groups} groups, the plan is for {list(self.shape)} in "
                f"{self.groups}: it was made for another network, or was applied already"
            )
        return module

    def holds(self, parameter_path: str) -> bool:
        """Whether a parameter's path lies in the layer."""
        return parameter_path.startswith(f"{self.path}.")

    def __str__(self) -> str:
        """Return a short description for summaries."""
        return f"{self.path} ({self.kind} {' x '.join(map(str, self.shape))})"


def layer_at(path: str, module: Any) -> Layer:
    """Return how an edit names the layer `module`."""
    kind = kind_of(module)
    assert kind is not None
    return Layer(path=path, kind=kind, shape=tuple(module.weight.shape), groups=groups_of(module))


def groups_of(module: Any) -> int:
    """Return a layer's number of groups."""
    return 1 if isinstance(module, nn.Linear) else int(module.groups)


def kind_of(module: nn.Module) -> str | None:
    """Return torch's name of a linear layer's kind, None for other modules."""
    return next((kind.__name__ for kind in LINEAR_LAYERS if isinstance(module, kind)), None)


def refusal(model: nn.Module, path: str, module: Any) -> str | None:
    """Return why the layer at `path` cannot be replaced by others that compute the same, None if it can."""
    if not path:
        return "it is the network itself; put it in an nn.Sequential"
    if is_parametrized(module) or not isinstance(vars(module)["_parameters"].get("weight"), nn.Parameter):
        return "its weight is computed from something else (a parametrisation); remove that first"
    if is_lazy(module.weight):
        return "it is lazy and has no shape yet: run the network once"
    if not module.weight.is_floating_point():
        return f"its weight is of {module.weight.dtype}"
    if not _runs_as_torch_has_it(module):
        return f"{type(module).__name__} computes something of its own, so it is not replaced"
    parent = model.get_submodule(path.rpartition(".")[0])
    if isinstance(parent, nn.MultiheadAttention | nn.TransformerEncoderLayer):
        return f"{type(parent).__name__} reads its weight itself, so it cannot be replaced"
    return _tie(model, path, module)


def _runs_as_torch_has_it(module: nn.Module) -> bool:
    """A subclass may standardise its weight or quantise."""
    kind: Any = next(kind for kind in LINEAR_LAYERS if isinstance(module, kind))
    own: Any = type(module)
    return all(
        getattr(own, name, None) is getattr(kind, name, None) for name in ("forward", "_conv_forward", "__call__")
    )


def _tie(model: nn.Module, path: str, module: nn.Module) -> str | None:
    own = {id(parameter) for parameter in module.parameters(recurse=False)}
    for other_path, other in model.named_modules():
        held = vars(other)[
            "_parameters"
        ].values()  # `parameters()` takes ten times as long, and this runs for each layer
        if other is not module and not own.isdisjoint(map(id, held)):
            return f"its parameters are also those of {other_path or 'the network itself'}: untie them first"
    return None


def choose(
    model: nn.Module, layers: Layers, skip_first: int, unfit: Callable[[str, Any], str | None]
) -> list[tuple[str, Any]]:
    """Return (path, module) of the layers of `model` that `layers` names and that are fit, in the network's order.

    Args:
        model: any network.
        layers: one or several of: a glob over dotted paths ("encoder.*", "*.conv1"; `*` goes over dots), a rule on the
            largest side of a convolution's kernel ("k>1", "k>=5", "k=3"), either of them behind "!" to leave out.
        skip_first: how many of the layers named are left out, from the input on.
        unfit: (path, module) -> why a layer cannot be worked on, None where it can. A layer named by its very path
            must be fit; one named by a glob or a rule is passed over.

    Raises:
        EditError: a pattern matches no layer (near ones are named), a layer named by its path is unfit, or all are.
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
    reasons = {path: refusal(model, path, known[path]) or unfit(path, known[path]) for path in ordered}
    for path, reason in reasons.items():
        if reason and path in patterns:
            raise EditError(f"{path}: {reason}")
    fit = [(path, known[path]) for path, reason in reasons.items() if reason is None]
    if not fit:
        first = next((f"; {path}: {reason}" for path, reason in reasons.items()), ": all are left out")
        raise EditError(f"{', '.join(patterns)} leaves no layer to work on{first}")
    return fit


def patterns_of(layers: Layers) -> list[str]:
    """Return the patterns, at least one that names something."""
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
    return _near(text, known)


def _near(text: str, paths: Iterable[str]) -> str:
    words = text.strip("*.?")
    everything = [path for path in paths if path]
    if not everything:
        return "; it has none"
    near = difflib.get_close_matches(words, everything, n=3, cutoff=0.4)
    near = near or [path for path in everything if words and words.split(".")[-1] in path][:3]
    return f"; near ones are {', '.join(near)}" if near else f"; there are {', '.join(everything[:5])}, ..."


def still_expanded(model: nn.Module, path: str) -> str | None:
    """Return why a factor of an expanded layer is not reshaped by itself, None for other layers."""
    parent = enclosing(model, path, "expand")
    return None if parent is None else f"it is a factor of {parent}, which is expanded: contract {parent} first"


def check_share(energy: float) -> None:
    """Refuse what is no share of the singular values."""
    if type(energy) not in (int, float) or not 0 < energy <= 1:
        raise EditError(f"energy is a share of the singular values in (0, 1], not {energy!r}")


def check_rank(rank: int, full: int | None, place: str, name: str = "rank") -> None:
    """Refuse a rank below 1, or above `full` where there is a bound."""
    if type(rank) is not int or rank < 1 or (full is not None and rank > full):
        bound = "at least 1" if full is None else f"in 1..{full}"
        raise EditError(f"{place}: the {name} must be a whole number {bound}, not {rank!r}")


def enclosing(model: nn.Module, path: str, origin: str) -> str | None:
    """Return the path of the `Factors` of the given origin in which `path` lies, None where it lies in none."""
    parts = path.split(".")
    for length in range(1, len(parts)):
        parent = ".".join(parts[:length])
        module = model.get_submodule(parent)
        if isinstance(module, Factors) and module.origin == origin:
            return parent
    return None
