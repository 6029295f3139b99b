"""Peak memory of a network, measured in a separate process.

The figure is the peak resident memory of a fresh process that loads the network and runs it three times, minus the
memory that the process held before: interpreter, runtime and inputs. Before that, a network of a single convolution is
loaded, run and closed, because runtimes load parts of themselves with their first network. The figure therefore
includes the weights, the runtime's own form and copies of them, activations and workspace. It excludes the runtime
itself, which is the same for every network and a hundred times larger than a small one.

On Linux both figures come from /proc/self/status (VmRSS; VmHWM, reset through /proc/self/clear_refs), elsewhere from
getrusage. Linux's ru_maxrss would be wrong here: it survives exec, so a child of a large process starts with its
parent's peak.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import nn

from prunus.backends import Network, Shape
from prunus.backends.interface import refusals
from prunus.errors import DeployError
from prunus.interrupt import output_of
from prunus.modules.modes import evaluating

FIRST_SHAPE = (1, 1, 8, 8)
_TIMEOUT_SECONDS = 900


def peak_memory_mb(network: Network, shapes: Sequence[Shape], *, backend: str, threads: int) -> float:
    """Return the peak memory of `network` on `backend` in MB (1e6 bytes), as defined above.

    A module is passed to the other process as a torch.export program, which runs the same operators one by one.

    Raises:
        DeployError: the process failed (the message quotes its output) or took more than 15 minutes.
    """
    with tempfile.TemporaryDirectory(prefix="prunus-") as folder:
        file = network if isinstance(network, Path) else _save(network, shapes, Path(folder) / "network.pt2")
        request = {
            "network": str(file),
            "first_network": str(_first_network(Path(folder), module=isinstance(network, nn.Module))),
            "first_shapes": [FIRST_SHAPE],
            "shapes": list(shapes),
            "backend": backend,
            "threads": threads,
        }
        output = _run_probe(json.dumps(request), f"{backend} with {file.name}")
    return float(json.loads(output.splitlines()[-1])["peak_memory_mb"])


def _save(model: nn.Module, shapes: Sequence[Shape], path: Path) -> Path:
    inputs = tuple(torch.zeros(shape) for shape in shapes)
    remedy = "Set measure_memory to false to continue without its peak memory"
    with refusals(f"torch.export of {type(model).__name__}", remedy), evaluating(model):
        torch.export.save(torch.export.export(model, inputs), path)
    return path


def _first_network(folder: Path, *, module: bool) -> Path:
    """Write the single convolution [1, 8, 3, 3] that takes `FIRST_SHAPE`, as a program or as an ONNX file."""
    if module:
        return _save(nn.Conv2d(1, 8, 3), [FIRST_SHAPE], folder / "first.pt2")
    weight = onnx.numpy_helper.from_array(np.ones((8, 1, 3, 3), np.float32), "weight")
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Conv", ["input", "weight"], ["output"])],
        "first",
        [onnx.helper.make_tensor_value_info("input", onnx.TensorProto.FLOAT, FIRST_SHAPE)],
        [onnx.helper.make_tensor_value_info("output", onnx.TensorProto.FLOAT, None)],
        [weight],
    )
    opset = onnx.helper.make_opsetid("", 18)
    onnx.save(onnx.helper.make_model(graph, opset_imports=[opset], ir_version=10), folder / "first.onnx")
    return folder / "first.onnx"


def _run_probe(request: str, what: str) -> str:
    # -P: the working directory must not shadow an installed module; this process's search path is passed on.
    command = [sys.executable, "-P", "-W", "ignore", "-m", "prunus.deploy.memory_probe", request]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    try:
        done = output_of(command, timeout_s=_TIMEOUT_SECONDS, env=environment)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise DeployError(
            f"measuring the peak memory of {what} failed: {error}. Set measure_memory to false to continue without it"
        ) from error
    if done.returncode != 0:
        said = " ".join(done.stderr.split())[-600:] or "it printed nothing, so it may have run out of memory"
        raise DeployError(
            f"measuring the peak memory of {what} failed: its process ended with {done.returncode}: {said}. Set "
            "measure_memory to false to continue without it"
        )
    return done.stdout
