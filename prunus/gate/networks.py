"""Networks to compare: modules, or exported files that a backend runs."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from prunus import backends
from prunus.deploy.export import input_shape
from prunus.errors import DeployError, RecipeError, TrainingError
from prunus.modules.modes import modes_kept
from prunus.modules.tensors import device_of

Answer = Callable[[Tensor], Any]


@contextlib.contextmanager
def answering(
    network: nn.Module | str | Path, device: torch.device, threads: int = 1, backend: str = "onnxruntime"
) -> Iterator[Answer]:
    """Yield a function from a batch of images to the network's output, in evaluation mode, without gradients.

    Args:
        network: a module, or a file that `backend` runs.
        device: of a module.
        threads: of the backend.
        backend: runs a file.

    Raises:
        RecipeError: `network` is neither a module nor an existing file for the backend.
        TrainingError: the module cannot run on the images.
        DeployError: the backend is not installed, or the file does not load or run.
    """
    if isinstance(network, nn.Module):
        before = device_of(network)
        with modes_kept(network), torch.no_grad():
            try:
                network.to(device).eval()
                yield lambda images: _returned(network, images.to(device))
            finally:
                network.to(before)
        return
    if not isinstance(network, str | Path):
        raise RecipeError(f"a network to compare is a module, or an ONNX file, not {network!r:.60}")
    path, chosen = Path(network), backends.find(backend)
    if path.suffix not in (".onnx", chosen.int8_suffix):
        allowed = " or ".join(dict.fromkeys((".onnx", chosen.int8_suffix)))
        raise RecipeError(f"{path} is not a network to compare: give a module, or a file that ends in {allowed}")
    if not path.is_file():
        raise RecipeError(
            f"{path} does not exist: name the ONNX file of a network, as a run or `prunus export` writes it"
        )
    with contextlib.ExitStack() as stack:
        sessions = dict[tuple[int, ...], Any]()

        def answer(images: Tensor) -> Any:
            shape = tuple(images.shape)
            if shape not in sessions:
                if path.suffix == ".onnx":
                    require_inputs(path, shape[1:])
                loaded = chosen.load(path, (shape,), threads)
                sessions[shape] = stack.enter_context(loaded)
            found = {name: torch.from_numpy(each) for name, each in sessions[shape].run((images.numpy(),)).items()}
            return next(iter(found.values())) if len(found) == 1 else found

        yield answer


def _returned(network: nn.Module, images: Tensor) -> Any:
    try:
        return network(images)
    except (RuntimeError, TypeError, ValueError, LookupError) as error:
        raise TrainingError(
            f"{type(network).__name__} cannot be run on images {list(images.shape)} of the data: {error}"
        ) from error


def require_inputs(path: Path, given: tuple[int, ...]) -> None:
    """Check that the input of an ONNX file has the shape `given`, without the batch dimension.

    Raises:
        DeployError: the input has another shape, or the file is not ONNX.
    """
    own = input_shape(path)
    if own is not None and own != given:
        raise DeployError(
            f"{path} takes inputs {own}, and the data give {given}: name the recipe or the run with whose data it was "
            "trained"
        )
