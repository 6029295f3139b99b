"""A kit with which a machine without Prunus measures latencies; `measured_kit.py` reads the result."""

import contextlib
import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from prunus.backends.target import Target
from prunus.deploy import kit_script
from prunus.deploy.export import export_onnx
from prunus.deploy.latency_meter import folded
from prunus.deploy.latency_model import Progress, fingerprint, is_open, spread_networks
from prunus.deploy.unit_curves import planned_sizes
from prunus.deploy.units import UnitShape, network_units
from prunus.errors import DeployError
from prunus.graph import ChannelGroups
from prunus.interrupt import check
from prunus.storage import whole_folder
from prunus.surgery import apply
from prunus.surgery.removal import removal
from prunus.writing import write_whole

WEIGHTS = "weights.bin"  # shared by all units: the values do not matter
STEP = 8  # the widths of the whole networks are multiples of it


def write_kit(
    folder: Path,
    model: nn.Module,
    groups: ChannelGroups,
    inputs: tuple[torch.Tensor, ...],
    target: Target,
    progress: Progress | None = None,
) -> Path:
    """Write a kit with which `target`, another machine, measures `model` at its possible widths; return `folder`.

    Args:
        folder: is created completely or not at all; must be empty or absent.
        model: the network, as traced.
        groups: `prunus.trace` of it.
        inputs: the example, at the target's batch and resolution.
        target: backend, threads and precision there.
        progress: called for each network that was written.

    Raises:
        DeployError: the folder is not empty, or the script does not support the backend or the precision.
    """
    if target.backend not in kit_script.RUNTIMES:
        known = ", ".join(kit_script.RUNTIMES)
        raise DeployError(f"a kit is measured in {known}, not in {target.backend}: name one of these")
    if target.precision != "fp32":
        raise DeployError(f"a kit is measured in fp32, and {target} is not: INT8 is measured where Prunus is installed")
    with _whole(folder) as aside:
        items = _write_units(aside, model, groups, inputs) + _write_networks(aside, model, groups, inputs, progress)
        content = {
            "format": kit_script.FORMAT,
            "target": {name: getattr(target, name) for name in ("backend", "device", "threads", "precision")},
            "items": items,
        }
        content["id"] = digest(content)
        shutil.copyfile(kit_script.__file__, aside / "measure.py")
        write_whole(aside / "kit.json", (json.dumps(content, indent=1) + "\n").encode())
    return folder


@contextlib.contextmanager
def _whole(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder that becomes `folder`, which must be empty or absent."""
    try:
        if folder.exists() and any(folder.iterdir()):
            raise DeployError(f"{folder} is not empty: name another folder for the kit, or empty it")
        with whole_folder(folder.resolve()) as aside:
            yield aside
    except OSError as error:
        raise DeployError(f"{folder} cannot be written ({error.strerror or error}): name another folder") from error


def _write_units(
    folder: Path, model: nn.Module, groups: ChannelGroups, inputs: tuple[torch.Tensor, ...]
) -> list[dict[str, Any]]:
    asked: dict[tuple[UnitShape, tuple[int, ...]], None] = {}
    for unit in network_units(model, groups, inputs):
        for sizes in planned_sizes(unit.full, is_open(groups, unit)):
            asked[unit.shape, unit.shape.possible(sizes)] = None
    largest = max((shape.num_weights(sizes) for shape, sizes in asked), default=1)
    weights = np.random.default_rng(0).standard_normal(largest, dtype=np.float32)
    write_whole(folder / WEIGHTS, weights.tobytes())
    items = list[dict[str, Any]]()
    for number, (shape, sizes) in enumerate(asked):
        check()
        name = f"unit-{number:05}.onnx"
        shape.write(sizes, folder / name, shared=WEIGHTS)
        items.append(
            {
                "kind": "unit",
                "file": name,
                "unit": shape.key,
                "sizes": list(sizes),
                "shapes": [list(shape.input_shape(sizes))],
            }
        )
    return items


def _write_networks(
    folder: Path,
    model: nn.Module,
    groups: ChannelGroups,
    inputs: tuple[torch.Tensor, ...],
    progress: Progress | None,
) -> list[dict[str, Any]]:
    items, networks = list[dict[str, Any]](), spread_networks(groups, STEP)
    name = fingerprint(network_units(model, groups, inputs), groups)
    for number, alive in enumerate(networks):
        small = folded(apply(removal(groups, ~alive), model), inputs)
        file = f"network-{number}.onnx"
        export_onnx(small, tuple(each.cpu() for each in inputs), folder / file, dynamic_batch=False)
        shapes = [list(each.shape) for each in inputs]
        gone = (~alive).nonzero().flatten().tolist()
        items.append({"kind": "network", "file": file, "network": name, "removed": gone, "shapes": shapes})
        if progress is not None:
            progress("networks", number + 1, len(networks))
    return items


def digest(content: Mapping[str, Any]) -> str:
    """Return the id of a kit with this content."""
    plain = {name: value for name, value in content.items() if name != "id"}
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()
