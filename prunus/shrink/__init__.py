"""SHRINK: the controller as one object that works in any training loop; the network becomes narrower in place."""

from prunus.shrink.shrinker import Shrinker

__all__ = ["Shrinker"]
