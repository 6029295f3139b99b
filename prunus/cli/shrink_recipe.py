"""The recipe of `prunus shrink`: another recipe's data, task and training with an already trained network."""

import argparse
import json
import math
from pathlib import Path
from typing import Any

from prunus.errors import RecipeError

PLAIN: dict[str, Any] = {
    "baseline": "untrained",
    "encoder_stage": None,
    "edits": [],
    "penalties": [],
    "start": "auto",
    "distillation": None,
    "then": [],
    "from_scratch": False,
}  # switches off everything else that the other recipe may do


def overrides_of(options: argparse.Namespace, path: Path) -> list[str]:
    """Return the overrides that make the recipe at `path` shrink the network of the command line.

    Raises:
        RecipeError: an option is not key=value, or the network is not module:callable.
    """
    from prunus import recipe
    from prunus.budget.controller import BEGIN_ON_TRAINED
    from prunus.budget.family import QUANTITIES
    from prunus.pipeline import Recipe

    module, _, function = options.network.partition(":")
    if not module or not function:
        raise RecipeError(f"{options.network!r} is not a network: write module:callable, as in my.networks:Net")
    arguments = {"function": f"{module}.{function}", "arguments": _values("--set", options.set)}
    given = {
        "model.class_path": "prunus.models.factory.Function",
        "model.init_args": arguments,
        "weights": {"path": options.weights},
        **PLAIN,
        "shrink": {
            "budget": {**dict.fromkeys(QUANTITIES), **_values("--budget", options.budget)},  # no bound of the recipe's
            "budgets": [],
            "begin": BEGIN_ON_TRAINED,
            "end": None,
        },
    }
    composed = [f"{key}={json.dumps(value)}" for key, value in given.items()]
    resolved = recipe.resolve(Recipe, path, composed)
    composed += [
        f"name={json.dumps(resolved['name'] + '-shrunk')}",
        f"train.epochs={math.ceil(resolved['train']['epochs'] / 3)}",
    ]
    return [*composed, *options.overrides]


def _values(option: str, items: list[str]) -> dict[str, Any]:
    from prunus.decoding import DecodingError
    from prunus.yaml_text import from_yaml

    values = {}
    for item in items:
        key, equals, value = item.partition("=")
        if not equals or not key:
            raise RecipeError(f"{option} {item}: write key=value")
        try:
            values[key] = from_yaml(value)
        except DecodingError as error:
            raise RecipeError(f"{option} {item}: the value is not valid YAML: {error}") from error
    return values
