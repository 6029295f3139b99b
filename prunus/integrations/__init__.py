"""Integrations with existing trainers: each is a thin caller of `prunus.Shrinker`.

    prunus.integrations.ultralytics.Shrink    callbacks of Ultralytics' own trainer
    prunus.integrations.transformers.Shrink   a callback of the Hugging Face Trainer
    prunus.integrations.lightning.Shrink      a callback of Lightning's Trainer
    prunus.integrations.accelerate.Shrink     for a loop with Hugging Face's accelerate

A trainer's unsupported features are refused by name. A module here, and the trainer with it, is imported when it is
first accessed.
"""

import importlib
from typing import Any

_TRAINERS = ("accelerate", "lightning", "transformers", "ultralytics")


def __getattr__(name: str) -> Any:
    if name not in _TRAINERS:
        raise AttributeError(f"module 'prunus.integrations' has no attribute {name!r}; it has {', '.join(_TRAINERS)}")
    return importlib.import_module(f"prunus.integrations.{name}")
