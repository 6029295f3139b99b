"""How a recipe names a network: a callable that builds the wide network, as often as it is called."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from torch import nn

from prunus import compat  # noqa: F401  # must precede torchvision's and timm's networks
from prunus.errors import RecipeError
from prunus.recipe import modules


class ModelFactory(Protocol):
    """A class that takes `num_classes`, or `prunus.models.factory.Function` with the `function` that gives it."""

    def __call__(self, *, num_classes: Any) -> nn.Module:
        """Build the network with fresh weights; for several tasks `num_classes` is {sub-task: number}."""
        ...


class Function(nn.Module):
    """A network built by a function, as most of torchvision's and timm's are; in Python, call the function instead.

    A recipe names classes. This class has no instances: `Function(...)` returns the result of the function.

    Args:
        function: the function's dotted path: "torchvision.models.resnet18", "timm.create_model".
        num_classes: supplied by the run.
        arguments: the function's other keyword arguments.

    Raises:
        RecipeError: there is no such function.
    """

    def __new__(cls, *, function: str, num_classes: int, arguments: dict[str, Any] | None = None) -> nn.Module:  # type: ignore[misc]
        """Call the function."""
        try:
            found: Callable[..., nn.Module] = modules.named(function)
        except (ImportError, AttributeError) as error:
            raise RecipeError(f"model: {function} is not a dotted path of a function: {error}") from error
        if not callable(found):
            raise RecipeError(f"model: {function} is a {type(found).__name__}, not a function")
        return found(**(arguments or {}), num_classes=num_classes)


def build(factory: ModelFactory, num_classes: int | Mapping[str, int]) -> nn.Module:
    """Return a network with fresh weights.

    Raises:
        RecipeError: the network's own code raises, or does not return a module.
    """
    try:
        model = factory(num_classes=num_classes)
    except RecipeError:
        raise
    except Exception as error:  # whatever the user's own code raises
        many = isinstance(num_classes, Mapping)
        hint = "; the network of several tasks takes {sub-task: number of classes} as num_classes" if many else ""
        raise RecipeError(
            f"the model cannot be built for {num_classes} classes: {type(error).__name__}: {error}{hint}"
        ) from error
    if not isinstance(model, nn.Module):
        raise RecipeError(f"the model is a {type(model).__name__}, not an nn.Module")
    return model
