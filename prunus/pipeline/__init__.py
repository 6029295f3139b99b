"""Run a recipe, from training to the report; the only package that knows the order of the steps."""

from prunus.pipeline.context import Watch
from prunus.pipeline.recipe import Deploy, EncoderStage, Recipe, Stage
from prunus.pipeline.reshape import Contract, Decompose, Expand, Factorize, Linearize, Reshaping
from prunus.pipeline.run import run

__all__ = [
    "Contract",
    "Decompose",
    "Deploy",
    "EncoderStage",
    "Expand",
    "Factorize",
    "Linearize",
    "Recipe",
    "Reshaping",
    "Stage",
    "Watch",
    "run",
]
