"""The header of every benchmark's result file: date, command, versions and hardware."""

import datetime
import json
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prunus.pipeline.environment import hardware, versions

RESULTS = Path(__file__).parent / "results"


def header(data: str = "") -> dict[str, Any]:
    """Return the date, command, versions and hardware of this process.

    In the command, DATA replaces the path `data`, and the last part any other absolute path.
    """
    words = [word.replace(data, "DATA") if data else word for word in sys.argv[1:]]
    words = [Path(word).name if Path(word).is_absolute() else word for word in words]
    return {
        "date": datetime.date.today().isoformat(),
        "command": shlex.join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *words]),
        "versions": versions(),
        "hardware": hardware(),
    }


def write_result(name: str, figures: Mapping[str, Any], *, folder: Path = RESULTS, data: str = "") -> Path:
    """Write a header and `figures` to `name`.json in `folder`; return the file's path."""
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}.json"
    path.write_text(json.dumps({**header(data), **figures}, indent=1) + "\n", encoding="utf-8")
    return path
