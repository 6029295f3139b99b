"""The table of milliseconds from a kit that another machine has measured."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prunus.decoding import DATA, DecodingError, from_json, read_text
from prunus.deploy import kit_script
from prunus.deploy.kit import digest
from prunus.deploy.latency_table import LatencyTable
from prunus.errors import DeployError
from prunus.records.typed import typed


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeasuredKit:
    """The measurements of a kit.

    Attributes:
        table: the milliseconds; not saved yet.
        machine: processor, versions, threads, precision, as the script recorded them.
        noisy: files during which the reference varied too much, even after a longer measurement.
    """

    table: LatencyTable
    machine: Mapping[str, Any]
    noisy: tuple[str, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class KitFile:
    """A file of a kit: a unit at some sizes, or a whole network without some groups."""

    kind: str
    file: str
    shapes: list[list[int]]  # of the inputs
    unit: str = ""
    sizes: tuple[int, ...] = ()
    network: str = ""
    removed: tuple[int, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Machine:
    """What the script records about its machine."""

    processor: str
    version: str  # of the runtime
    threads: int
    precision: str
    cores: int | None = None
    system: str = ""
    python: str = ""
    numpy: str = ""


def read_kit(folder: Path, table: Path) -> MeasuredKit:
    """Return the measurements of the kit in `folder`, with a table that `save` writes to `table`.

    Raises:
        DeployError: the folder is no kit, or the kit is of another version, changed, not or only partly measured.
    """
    kit, found = _json(folder / "kit.json", "prunus target kit"), _json(folder / "measured.json", "python measure.py")
    for name, content in (("kit.json", kit), ("measured.json", found)):
        if content.get("format") != kit_script.FORMAT:
            raise DeployError(
                f"{folder / name} has format {content.get('format')!r}, this Prunus reads {kit_script.FORMAT}: make "
                "the kit again with `prunus target kit`, and measure that"
            )
    if kit.get("id") != digest(kit) or found.get("kit") != kit["id"]:
        raise DeployError(
            f"{folder / 'measured.json'} is not of the kit beside it, or that was changed: bring back the file that "
            "the script of this kit wrote, or make and measure the kit again"
        )
    items = _typed(list[KitFile], kit.get("items"), folder / "kit.json", "items")
    asked = _typed(dict[str, Any], kit.get("target"), folder / "kit.json", "target")
    machine = _typed(Machine, found.get("machine"), folder / "measured.json", "machine")
    measured = _typed(dict[str, Any], found.get("items"), folder / "measured.json", "items")
    missing = [item.file for item in items if not _is_measured(measured.get(item.file))]
    if missing:
        raise DeployError(
            f"{folder} is partly measured: {len(items) - len(missing)} of {len(items)} files, {missing[0]} is not. "
            "Start measure.py there again (it resumes), and bring measured.json back"
        )
    key = {**asked, "version": machine.version, "processor": machine.processor}
    result = LatencyTable(key, None)
    result.path = table
    beside = {item.file: measured[item.file]["reference_ms"] for item in items}
    first = next(iter(beside.values()), 1.0)
    networks = next((beside[item.file] for item in items if item.kind == "network"), first)
    for item in items:
        milliseconds = measured[item.file]["ms"] / beside[item.file]
        if item.kind == "unit":
            result.add(item.unit, item.sizes, max(1e-6, milliseconds * first))
        else:
            result.add_network(item.network, item.removed, max(1e-6, milliseconds * networks))
    noisy = tuple(item.file for item in items if measured[item.file]["spread"] >= kit_script.NOISY)
    return MeasuredKit(table=result, machine=dataclasses.asdict(machine), noisy=noisy)


def _is_measured(entry: Any) -> bool:
    names = ("ms", "reference_ms", "spread")
    numbers = [entry.get(name) for name in names] if isinstance(entry, dict) else [None]
    return all(isinstance(n, int | float) and not isinstance(n, bool) and 0 <= n < float("inf") for n in numbers) and (
        entry["reference_ms"] > 0
    )


def _typed(hint: Any, value: Any, path: Path, name: str) -> Any:
    try:
        return typed(hint, value, name)
    except ValueError as error:
        raise DeployError(
            f"{path} cannot be read: {error}. Make the kit again with `prunus target kit`, and measure that"
        ) from error


def _json(path: Path, made_by: str) -> dict[str, Any]:
    if not path.is_file():
        raise DeployError(f"{path} is not there: `{made_by}` writes it")
    try:
        content = from_json(read_text(path, DATA.size))
    except (OSError, DecodingError) as error:
        raise DeployError(f"{path} cannot be read: {error}. `{made_by}` writes it") from error
    if not isinstance(content, dict):
        raise DeployError(f"{path} was not written by `{made_by}`")
    return content
