"""A kit: what a machine without Prunus measures, so that it can be a target; and the table that comes of it."""

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from prunus.budget.target import Target
from prunus.decoding import DATA, DecodingError, from_json, read_text
from prunus.deploy import kit_script
from prunus.deploy.export import export_onnx
from prunus.deploy.latency_meter import folded
from prunus.deploy.latency_model import Progress, fingerprint, is_open, spread_networks
from prunus.deploy.latency_table import LatencyTable
from prunus.deploy.unit_curves import planned_sizes
from prunus.deploy.units import UnitShape, network_units
from prunus.errors import DeployError
from prunus.graph import ChannelGroups
from prunus.surgery import apply
from prunus.surgery.removal import removal
from prunus.writing import write_whole

WEIGHTS = "weights.bin"  # of all units: what they hold does not matter
STEP = 8  # channels, of the whole networks


def write_kit(
    folder: Path,
    model: nn.Module,
    groups: ChannelGroups,
    inputs: tuple[torch.Tensor, ...],
    target: Target,
    progress: Progress | None = None,
) -> Path:
    """Write everything that `target`, another machine, needs to measure what `model` may become; return `folder`.

    Args:
        folder: is made; must not hold anything yet.
        model: the network, as traced.
        groups: `prunus.trace` of it.
        inputs: the example, at the target's batch and resolution.
        target: backend, threads and precision there.
        progress: told of each file.

    Raises:
        DeployError: the folder is in use, or no script measures the backend or the precision.
    """
    if target.backend not in kit_script.RUNTIMES:
        known = ", ".join(kit_script.RUNTIMES)
        raise DeployError(f"a kit is measured in {known}, not in {target.backend}: name one of these")
    if target.precision != "fp32":
        raise DeployError(f"a kit is measured in fp32, and {target} is not: INT8 is measured where Prunus is")
    if folder.exists() and any(folder.iterdir()):
        raise DeployError(f"{folder} holds something already: name another folder for the kit, or empty it")
    folder.mkdir(parents=True, exist_ok=True)
    items = _write_units(folder, model, groups, inputs) + _write_networks(folder, model, groups, inputs, progress)
    content = {
        "format": kit_script.FORMAT,
        "target": {name: getattr(target, name) for name in ("backend", "device", "threads", "precision")},
        "items": items,
    }
    content["id"] = _digest(content)
    shutil.copyfile(kit_script.__file__, folder / "measure.py")
    write_whole(folder / "kit.json", (json.dumps(content, indent=1) + "\n").encode())
    return folder


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


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeasuredKit:
    """What a kit's machine measured.

    Attributes:
        table: the milliseconds; not saved yet.
        machine: processor, versions, threads, precision, as the script noted them.
        noisy: files beside which the reference was spread widely, however long they were measured.
    """

    table: LatencyTable
    machine: Mapping[str, Any]
    noisy: tuple[str, ...]


def read_kit(folder: Path, table: Path) -> MeasuredKit:
    """Return what was measured of the kit in `folder`, as a table that `save` writes to `table`.

    Raises:
        DeployError: it is no kit, of another version, changed, measured in part, or not at all.
    """
    kit, found = _json(folder / "kit.json", "prunus target kit"), _json(folder / "measured.json", "python measure.py")
    for name, content in (("kit.json", kit), ("measured.json", found)):
        if content.get("format") != kit_script.FORMAT:
            raise DeployError(
                f"{folder / name} has format {content.get('format')!r}, this Prunus reads {kit_script.FORMAT}: make "
                "the kit anew with `prunus target kit`, and measure that"
            )
    if kit.get("id") != _digest(kit) or found.get("kit") != kit["id"]:
        raise DeployError(
            f"{folder / 'measured.json'} is not of the kit beside it, or that was changed: bring back the file that "
            "the script of this kit wrote, or make and measure the kit anew"
        )
    items, measured = kit["items"], found.get("items", {})
    missing = [item["file"] for item in items if not _is_measured(measured.get(item["file"]))]
    if missing:
        raise DeployError(
            f"{folder} is measured in part: {len(items) - len(missing)} of {len(items)} files, {missing[0]} is not. "
            "Start measure.py there again, it goes on, and bring measured.json back"
        )
    machine = found["machine"]
    key = {**kit["target"], "version": machine["version"], "processor": machine["processor"]}
    result = LatencyTable(key, None)
    result.path = table
    first = measured[items[0]["file"]]["reference_ms"]
    networks = next((measured[item["file"]]["reference_ms"] for item in items if item["kind"] == "network"), first)
    for item in items:
        taken = measured[item["file"]]
        if item["kind"] == "unit":
            result.add(item["unit"], tuple(item["sizes"]), max(1e-6, taken["ms"] * first / taken["reference_ms"]))
        else:
            result.add_network(item["network"], item["removed"], taken["ms"] * networks / taken["reference_ms"])
    noisy = tuple(item["file"] for item in items if measured[item["file"]]["spread"] >= kit_script.NOISY)
    return MeasuredKit(table=result, machine=machine, noisy=noisy)


def _is_measured(entry: Any) -> bool:
    names = ("ms", "reference_ms", "spread")
    numbers = [entry.get(name) for name in names] if isinstance(entry, dict) else [None]
    return all(isinstance(n, int | float) and not isinstance(n, bool) and 0 <= n < float("inf") for n in numbers) and (
        entry["reference_ms"] > 0
    )


def _digest(content: Mapping[str, Any]) -> str:
    plain = {name: value for name, value in content.items() if name != "id"}
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def _json(path: Path, made_by: str) -> dict[str, Any]:
    if not path.is_file():
        raise DeployError(f"{path} is not there: `{made_by}` writes it")
    try:
        content = from_json(read_text(path, DATA.size))
    except (OSError, DecodingError) as error:
        raise DeployError(f"{path} cannot be read: {error}. `{made_by}` writes it") from error
    if not isinstance(content, dict):
        raise DeployError(f"{path} is none that `{made_by}` wrote")
    return content
