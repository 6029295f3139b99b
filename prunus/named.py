"""Networks as named on the command line: `module:callable`, or a run's folder for its narrow network."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import prunus.recipe
from prunus import compat, pipeline, records  # noqa: F401  # torchvision's models need compat
from prunus.decoding import DecodingError
from prunus.deploy.room import check_room
from prunus.errors import DeployError, RecipeError
from prunus.models.factory import build
from prunus.recipe import modules
from prunus.surgery import load
from prunus.yaml_text import from_yaml

IMAGE = (1, 3, 224, 224)


@dataclasses.dataclass(frozen=True)
class Named:
    """A network, and the shape of its example input, batch included."""

    model: nn.Module
    input_shape: tuple[int, ...] = IMAGE

    def example(self) -> Tensor:
        """Return an example input of standard normal values.

        Raises:
            RecipeError: there is not enough memory for it.
        """
        try:
            check_room([self.input_shape])
            return torch.randn(self.input_shape)
        except (RuntimeError, TypeError, DeployError) as error:  # torch counts sizes in 64 bits
            raise RecipeError(
                f"no example of the shape {self.input_shape} can be made: {error}; give another"
            ) from error


def named(name: str, settings: Sequence[str] = (), shape: tuple[int, ...] | None = None) -> Named:
    """Return the network that `name` names.

    Args:
        name: `module:callable`, which is imported and called, or the folder of a completed run.
        settings: `key=value`, the keyword arguments of the callable.
        shape: shape of the example input; None: that of the run, or one image of 224 x 224.

    Raises:
        RecipeError: there is no such network; says what is wrong with the name.
    """
    if Path(name).is_dir():
        if settings:
            raise RecipeError(f"{name} is the folder of a run, whose recipe says how to build its network: no --set")
        found = _narrow(Path(name))
    else:
        found = Named(_called(name, settings))
    return found if shape is None else dataclasses.replace(found, input_shape=shape)


def _narrow(folder: Path) -> Named:
    if not (folder / "recipe.yaml").is_file() or not (folder / "narrow").is_dir():
        raise RecipeError(
            f"{folder} is not the folder of a finished run: it lacks recipe.yaml or narrow/; the command that started "
            "the run resumes it"
        )
    recipe = prunus.recipe.load(pipeline.Recipe, folder / "recipe.yaml")
    found = [record for record in records.read(folder) if isinstance(record, records.RunRecord)]
    if not found:
        raise RecipeError(
            f"{folder / records.FILE_NAME} holds no record of the run itself: it was damaged or cut short"
        )
    about = found[-1]
    model = load(folder / "narrow", lambda: build(recipe.model, about.num_classes or len(about.class_names)))
    return Named(model, about.input_shape)


def _called(network: str, settings: Sequence[str]) -> nn.Module:
    module_name, _, name = network.partition(":")
    if not module_name or not name:
        raise RecipeError(
            f"{network!r} is not a network: write module:callable, as in torchvision.models:resnet18, the folder of a "
            "run, or, for `prunus bench` and `prunus compare`, an ONNX file, whose name ends in .onnx"
        )
    try:
        function = modules.named(f"{module_name}.{name}")
    except ImportError as error:
        raise RecipeError(f"{network}: the module {module_name} cannot be imported: {error}") from error
    except AttributeError as error:
        raise RecipeError(f"{network}: {error}") from error
    keywords = _keywords(settings)
    try:
        model = function(**keywords)
    except TypeError as error:
        raise RecipeError(f"{network}: {error}; give its arguments with --set key=value") from error
    except Exception as error:  # any error of the user's own code
        given = f" with {keywords}" if keywords else ""
        raise RecipeError(f"{network} cannot be built{given}: {type(error).__name__}: {error}") from error
    if not isinstance(model, nn.Module):
        raise RecipeError(f"{network} returns a {type(model).__name__}, not an nn.Module")
    return model


def _keywords(settings: Sequence[str]) -> dict[str, Any]:
    keywords = {}
    for item in settings:
        key, equals, value = item.partition("=")
        if not equals:
            raise RecipeError(f"--set {item}: write key=value")
        try:
            keywords[key] = from_yaml(value)
        except DecodingError as error:
            raise RecipeError(f"--set {item}: the value is not valid YAML: {error}") from error
    return keywords
