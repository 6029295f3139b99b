"""Networks to compare: modules, and ONNX files, which are run by ONNX Runtime."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from prunus.deploy import backends
from prunus.errors import RecipeError
from prunus.modules.modes import modes_kept

Answer = Callable[[Tensor], Any]


@contextlib.contextmanager
def answering(
    network: nn.Module | str | Path, device: torch.device, threads: int = 1, backend: str = "onnxruntime"
) -> Iterator[Answer]:
    """Yield a function from a batch of images to what the network returns, in evaluation mode, without gradients.

    Args:
        network: a module, or a file that `backend` runs.
        device: of a module.
        threads: of the backend.
        backend: runs a file.

    Raises:
        RecipeError: neither a module nor a file of the backend's.
        DeployError: the backend is absent, or the file does not load or run.
    """
    if isinstance(network, nn.Module):
        with modes_kept(network), torch.no_grad():
            network.to(device).eval()
            yield lambda images: network(images.to(device))
        return
    path, chosen = Path(network), backends.find(backend)
    if path.suffix not in (".onnx", chosen.int8_suffix) or not path.is_file():
        raise RecipeError(f"{path} is no ONNX file; a network to compare is a module, or a file that ends in .onnx")
    with contextlib.ExitStack() as stack:
        sessions = dict[tuple[int, ...], Any]()

        def answer(images: Tensor) -> Any:
            shape = tuple(images.shape)
            if shape not in sessions:
                loaded = chosen.load(path, (shape,), threads)
                sessions[shape] = stack.enter_context(loaded)
            found = {name: torch.from_numpy(each) for name, each in sessions[shape].run((images.numpy(),)).items()}
            return next(iter(found.values())) if len(found) == 1 else found

        yield answer
