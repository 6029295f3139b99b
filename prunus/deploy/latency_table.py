"""The table of measured units: a JSON file that all networks with the same shapes reuse on the same target."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prunus.backends.target import Target
from prunus.decoding import DATA, DecodingError, from_json, read_text
from prunus.deploy.kit_script import processor
from prunus.errors import DeployError
from prunus.records.typed import typed
from prunus.writing import write_whole

FORMAT = 1


def table_key(target: Target) -> dict[str, Any]:
    """Return what milliseconds on `target` depend on besides shapes: its settings, runtime version and processor."""
    known = {name: getattr(target, name) for name in ("backend", "device", "threads", "precision")}
    if target.remote:  # its table holds the rest
        return known
    return {**known, "version": target.require().version(), "processor": processor()}


@dataclasses.dataclass(frozen=True, kw_only=True)
class NetworkTime:
    """The milliseconds of a whole network without some of its channel groups."""

    removed: tuple[int, ...]
    ms: float

    def __post_init__(self) -> None:
        if not 0 < self.ms < float("inf") or min(self.removed, default=0) < 0:
            raise ValueError(f"{self.ms} ms is not a valid latency (network without groups {list(self.removed)[:5]})")


class LatencyTable:
    """Milliseconds by unit and sizes, on one target.

    Raises:
        DeployError: the file is no table, is of another version, or of another target (the message lists differences).
    """

    def __init__(self, key: Mapping[str, Any], path: Path | None = None, *, any_hardware: bool = False) -> None:
        self.key, self.path = dict(key), path
        self._units: dict[str, dict[str, float]] = {}
        self._networks: dict[str, list[NetworkTime]] = {}
        if path is not None and path.exists():
            self._units = self._read(path, any_hardware=any_hardware)

    def find(self, unit: str, sizes: tuple[int, ...]) -> float | None:
        """Return the milliseconds of `unit` at `sizes`; None if they are not known."""
        return self._units.get(unit, {}).get(_text(sizes))

    def add(self, unit: str, sizes: tuple[int, ...], milliseconds: float) -> None:
        """Add milliseconds; `save` writes them."""
        self._units.setdefault(unit, {})[_text(sizes)] = milliseconds

    def networks(self, name: str) -> list[NetworkTime]:
        """Return the measurements of the whole network `name`."""
        return list(self._networks.get(name, []))

    def add_network(self, name: str, removed: Sequence[int], milliseconds: float) -> None:
        """Add the milliseconds of the network `name` without the groups `removed`."""
        self._networks.setdefault(name, []).append(NetworkTime(removed=tuple(removed), ms=milliseconds))

    def __len__(self) -> int:
        return sum(map(len, self._units.values()))

    def save(self) -> None:
        """Write the file completely or not at all; do nothing if the table has no path."""
        if self.path is not None:
            content = {"format": FORMAT, "key": self.key, "units": self._units}
            networks = {name: list(map(dataclasses.asdict, times)) for name, times in self._networks.items()}
            content |= {"networks": networks} if networks else {}
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(self.path, (json.dumps(content, indent=1) + "\n").encode())

    def _read(self, path: Path, *, any_hardware: bool) -> dict[str, dict[str, float]]:
        try:
            content = from_json(read_text(path, DATA.size))
        except (OSError, DecodingError) as error:
            raise DeployError(f"{path} cannot be read as a table of latencies: {error}. Move it away") from error
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise DeployError(f"{path} is not a table of latencies of format {FORMAT}: move it away, and measure again")
        there = content.get("key")
        different = [
            f"{name} {there.get(name)!r} there, {value!r} here"
            for name, value in self.key.items()
            if isinstance(there, dict) and there.get(name) != value
        ]
        if not isinstance(there, dict) or (different and not any_hardware):
            raise DeployError(
                f"{path} was measured elsewhere ({'; '.join(different) or 'it does not name the target'}), so its "
                "milliseconds do not hold here: give another path, any_hardware=True to use it all the same, or, if "
                "it is from the intended target machine, Target(..., remote=True)"
            )
        self._networks = _networks(path, content)
        self.key = {**there, **self.key}
        return {unit: _numbers(path, entries) for unit, entries in _entries(path, content)}


def _entries(path: Path, content: Mapping[str, Any]) -> Any:
    units = content.get("units")
    if not isinstance(units, dict) or not all(isinstance(entries, dict) for entries in units.values()):
        raise DeployError(f"{path} has no units: move it away, and measure again")
    return units.items()


def _networks(path: Path, content: Mapping[str, Any]) -> dict[str, list[NetworkTime]]:
    try:
        return typed(dict[str, list[NetworkTime]], content.get("networks", {}), "networks")  # type: ignore[no-any-return]
    except ValueError as error:
        raise DeployError(f"{path}: {error}: move it away, and measure again") from error


def _numbers(path: Path, entries: Mapping[str, Any]) -> dict[str, float]:
    for sizes, value in entries.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
            raise DeployError(f"{path} has {value!r} milliseconds at {sizes}: move it away, and measure again")
    return {sizes: float(value) for sizes, value in entries.items()}


def _text(sizes: tuple[int, ...]) -> str:
    return "x".join(map(str, sizes))
