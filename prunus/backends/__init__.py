"""The table of backends. A new one is one file in this folder and one line in `BACKENDS`.

A private backend needs neither: wherever a backend is named, the dotted path of a final `Backend` class in the user's
own package works as well.
"""

import difflib

from prunus.backends.interface import Backend, Network, NodeTime, Session, Shape
from prunus.backends.onnxruntime import OnnxRuntime
from prunus.backends.openvino import OpenVINO
from prunus.backends.tensorrt import TensorRT
from prunus.backends.torch import Torch
from prunus.errors import RecipeError
from prunus.recipe import modules

__all__ = ["BACKENDS", "Backend", "Network", "NodeTime", "Session", "Shape", "find"]

BACKENDS: dict[str, Backend] = {
    "onnxruntime": OnnxRuntime(),
    "openvino": OpenVINO(),
    "tensorrt": TensorRT(),
    "torch": Torch(),
}


def find(name: str) -> Backend:
    """Return the backend called `name`, or the one whose class has the dotted path `name`.

    Raises:
        RecipeError: there is no such backend; the message suggests the nearest known name.
    """
    if name in BACKENDS:
        return BACKENDS[name]
    if "." in name:
        return _import(name)
    nearest = difflib.get_close_matches(name, BACKENDS, n=1, cutoff=0.4)
    guess = f"Did you mean {nearest[0]!r}? " if nearest else ""
    raise RecipeError(f"there is no backend {name!r}. {guess}Available: {', '.join(BACKENDS)}")


def _import(path: str) -> Backend:
    try:
        backend: Backend = modules.named(path, Backend)()
    except (ImportError, AttributeError) as error:
        raise RecipeError(f"the backend {path!r} cannot be imported: {error}") from error
    except modules.MisfitError as error:
        raise RecipeError(
            f"{path!r} is not a backend: it must be a class derived from prunus.backends.Backend"
        ) from error
    return backend
