"""RUN: the whole path from a recipe to a report; the only package that knows the order."""

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
