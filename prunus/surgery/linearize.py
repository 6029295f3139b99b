"""Linearize: take the ReLUs out of layers that were expanded with them (Guo, Alvarez & Salzmann, NeurIPS 2020)."""

import dataclasses

from torch import Tensor, nn

from prunus.errors import EditError
from prunus.surgery.edit import Edit, Plan
from prunus.surgery.factors import Factors, replaced
from prunus.surgery.given import checked


@dataclasses.dataclass(frozen=True, kw_only=True)
class Linearize(Edit):
    """Take the ReLUs out from between the factors of an expanded layer: the non-linear stage starts the linear one.

    Every parameter stays, and the optimizer's state of it.
    """

    path: str

    @property
    def exact(self) -> bool:
        """Return False: the function changes, the linear network is trained on."""
        return False

    def apply(self, model: nn.Module) -> nn.Module:
        """Return a copy of `model` without the ReLUs."""
        result = replaced(model, {})
        found = dict(result.named_modules()).get(self.path)
        if not isinstance(found, Factors) or not _rectifiers(found):
            raise EditError(f"{self.path}: there are no factors with ReLUs between them")
        for name in _rectifiers(found):
            delattr(found, name)
        return result

    def summary(self) -> str:
        """Return one line for a reader."""
        return f"take the ReLUs out from between the factors of {self.path}"

    def carry(self, path: str, tensor: Tensor) -> Tensor | None:
        """Return `tensor`: every parameter stays."""
        return tensor


@checked
def linearize(model: nn.Module) -> Plan:
    """Return the plan that takes the ReLUs out of every expanded layer of `model`; parameters stay as they are.

    Raises:
        EditError: no layer was expanded with ReLUs.
    """
    expanded = [(path, m) for path, m in model.named_modules() if isinstance(m, Factors) and m.origin == "expand"]
    found = [path for path, module in expanded if _rectifiers(module)]
    if not found:
        raise EditError(f"{type(model).__name__} has no layer that was expanded with ReLUs between its factors")
    return Plan(tuple(Linearize(path=path) for path in found))


def _rectifiers(module: Factors) -> list[str]:
    return [name for name, part in module.named_children() if isinstance(part, nn.ReLU)]
