"""Linearize: remove the ReLUs from layers that were expanded with them (Guo, Alvarez & Salzmann, NeurIPS 2020)."""

import dataclasses
from typing import ClassVar

from torch import nn

from prunus.errors import EditError
from prunus.modules.copying import copied
from prunus.surgery.argument_types import checked
from prunus.surgery.edit import Edit
from prunus.surgery.factors import Factors
from prunus.surgery.plan import Plan


@dataclasses.dataclass(frozen=True, kw_only=True)
class LinearizeLayer(Edit):
    """Remove the ReLUs between the factors of an expanded layer: the non-linear stage initialises the linear one.

    Every parameter is kept, and so is the optimizer's state.
    """

    edit_name: ClassVar[str] = "Linearize"
    exact: ClassVar[bool] = False  # the function changes; the linear network is trained further
    path: str

    def apply(self, model: nn.Module) -> nn.Module:
        """Return a copy of `model` without the ReLUs."""
        result = copied(model)
        found = dict(result.named_modules()).get(self.path)
        if not isinstance(found, Factors) or not _rectifiers(found):
            raise EditError(f"{self.path}: there are no factors with ReLUs between them")
        for name in _rectifiers(found):
            delattr(found, name)
        return result

    def summary(self) -> str:
        """Describe the edit in one line."""
        return f"remove the ReLUs between the factors of {self.path}"


@checked
def linearize(model: nn.Module) -> Plan:
    """Return the plan that removes the ReLUs from every expanded layer of `model`; parameters are not changed.

    Raises:
        EditError: no layer was expanded with ReLUs.
    """
    expanded = [(path, m) for path, m in model.named_modules() if isinstance(m, Factors) and m.origin == "expand"]
    found = [path for path, module in expanded if _rectifiers(module)]
    if not found:
        raise EditError(f"{type(model).__name__} has no layer that was expanded with ReLUs between its factors")
    return Plan(tuple(LinearizeLayer(path=path) for path in found))


def _rectifiers(module: Factors) -> list[str]:
    return [name for name, part in module.named_children() if isinstance(part, nn.ReLU)]
