"""An expanded network, seen as what it contracts to: trained at nearly the narrow network's cost.

The factors of an expanded layer compute x -> L (K (F x)). In a step the kernel W = L K F is multiplied out first, once,
and the images meet W alone: the same outputs and, by the chain rule, the same gradients of L, K and F up to rounding,
without the wide feature maps in between. The product costs as much whatever the batch and the size of its images, so it
pays for convolutions; linear layers, which meet each image once, stay as they are.
"""

from typing import Any, final

import torch
from torch import Tensor, nn

from prunus.surgery import Contract, Factors, Plan, apply, contract


def is_expanded(model: nn.Module) -> bool:
    """Whether a layer of `model` stands expanded."""
    return bool(_expanded(model))


def computed(model: nn.Module) -> nn.Module:
    """Return what a training step calls for `model`: itself, or `Contracted` where convolutions stand expanded.

    While ReLUs stand between the factors there is no kernel, and all are computed one by one.
    """
    found = _expanded(model)
    if any(isinstance(module, nn.ReLU) for factors in found.values() for module in factors.modules()):
        return model
    paths = [path for path, factors in found.items() if not isinstance(factors.layers[0], nn.Linear)]
    return Contracted(model, contract(model, paths)) if paths else model


@final
class Contracted(nn.Module):
    """Computes what `model` computes, whose parameters it has, through the kernels that `plan` contracts it to."""

    def __init__(self, model: nn.Module, plan: Plan) -> None:
        super().__init__()
        self.model = model
        small = apply(plan, model)
        share_(model, small)
        self._hidden = (small,)  # no submodule: its kernels are no parameters
        self.edits = [(edit, f"{edit.path}{_path_of_last(small, edit)}") for edit in plan if isinstance(edit, Contract)]

    def train(self, mode: bool = True) -> "Contracted":
        """Put both views of the network in training or evaluation mode."""
        for small in self._hidden:
            small.train(mode)
        return super().train(mode)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Return what the network returns."""
        return torch.func.functional_call(self._hidden[0], self.kernels(), args, kwargs)

    def kernels(self) -> dict[str, Tensor]:
        """Return weights and biases of the contracted layers, by path, in the factors' own precision."""
        found = dict[str, Tensor]()
        for edit, path in self.edits:
            device = edit.factors[0].find(self.model).weight.device.type
            with torch.autocast(device, enabled=False):
                weight, bias = edit.tensors(self.model)
            found |= {f"{path}.weight": weight} | ({} if bias is None else {f"{path}.bias": bias})
        return found


def last_layer(module: nn.Module) -> Any:
    """Return the last layer with a weight: a layer itself, or what stands behind a padding or other factors."""
    return [each for each in module.modules() if getattr(each, "weight", None) is not None][-1]


def share_(model: nn.Module, small: nn.Module) -> None:
    """Give `small` the very parameters and buffers of `model` wherever it has them."""
    for named in (nn.Module.named_parameters, nn.Module.named_buffers):
        own = dict(named(model))
        for path, _ in list(named(small)):
            if path in own:
                parent, _, name = path.rpartition(".")
                setattr(small.get_submodule(parent), name, own[path])


def _expanded(model: nn.Module) -> dict[str, Factors]:
    """Return what stands in the place of expanded layers, none inside another."""
    found = {
        path: each for path, each in model.named_modules() if isinstance(each, Factors) and each.origin == "expand"
    }
    return {path: each for path, each in found.items() if not any(path.startswith(f"{outer}.") for outer in found)}


def _path_of_last(small: nn.Module, edit: Contract) -> str:
    """Return where the layer with the kernel lies in what took the factors' place: there, or behind a padding."""
    module = small.get_submodule(edit.path)
    return next(f".{path}" if path else "" for path, each in module.named_modules() if each is last_layer(module))
