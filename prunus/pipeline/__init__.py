"""The whole path from a recipe to a report; the only room that knows the order."""

from prunus.pipeline.recipe import Deploy, EncoderStage, Recipe
from prunus.pipeline.run import run
from prunus.pipeline.stages import Watch

__all__ = ["Deploy", "EncoderStage", "Recipe", "Watch", "run"]
