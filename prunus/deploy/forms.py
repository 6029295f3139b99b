"""Choose the form in which a layer is deployed: each equal form is timed within the network, and the fastest is taken.

The layers that `factorize`, `decompose` or `expand` substituted for one, with nothing non-linear between them, compute
the same as the one layer that they multiply to. Whether fewer multiply-adds in more operators are faster than more in
one operator depends on the target, so both are measured.
"""

import dataclasses
from collections.abc import Callable, Iterator

from torch import Tensor, nn

from prunus.errors import EditError
from prunus.interrupt import check
from prunus.surgery import contract
from prunus.surgery.factors import Factors
from prunus.verify import apply_measured

DENSE = "one layer"


@dataclasses.dataclass(frozen=True, kw_only=True)
class FormChoice:
    """The forms of one layer.

    Attributes:
        layer: its path.
        milliseconds: latency of the whole network with the layer in each form, the trained form first.
        chosen: the form that is deployed: the fastest.
        max_rel_diff: difference of the output between the forms, relative to the largest output.
    """

    layer: str
    milliseconds: dict[str, float]
    chosen: str
    max_rel_diff: float | None


def choose_forms(
    model: nn.Module, inputs: Tensor, meter: Callable[[nn.Module], float]
) -> tuple[nn.Module, list[FormChoice]]:
    """Return the network with each layer in its fastest form, and the choice for each layer.

    Each layer is timed in the network that results from the previous choices.

    Args:
        model: in evaluation mode, BatchNorm folded; it is not changed.
        inputs: an example, [N, C, H, W].
        meter: returns a network's milliseconds on the target.

    Raises:
        EditError: a form does not compute the same.
        DeployError: a form cannot be exported or run on the target.
    """
    choices = list[FormChoice]()
    before: float | None = None
    for path, factors in _outermost(model):
        check()
        try:
            plan = contract(model, path)
        except EditError:  # a non-linear layer between: there is no equal form
            continue
        dense, records = apply_measured(model, plan, inputs)
        before = meter(model) if before is None else before
        after = meter(dense)
        form = f"{len(factors.layers)} layers ({factors.origin})"
        choices.append(
            FormChoice(
                layer=path,
                milliseconds={form: before, DENSE: after},
                chosen=DENSE if after < before else form,
                max_rel_diff=records[0].max_rel_diff,
            )
        )
        if after < before:
            model, before = dense, after
    return model, choices


def has_forms(model: nn.Module) -> bool:
    """Whether any layer of `model` can be deployed in more than one form."""
    return next(_outermost(model), None) is not None


def _outermost(model: nn.Module) -> Iterator[tuple[str, Factors]]:
    found = {path: module for path, module in model.named_modules() if isinstance(module, Factors)}
    for path, module in found.items():
        if not any(path.startswith(f"{outer}.") for outer in found):
            yield path, module
