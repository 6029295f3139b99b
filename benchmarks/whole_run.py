"""A timed run of a recipe in its own process, as a user starts it."""

import dataclasses
import resource
import subprocess
import sys
import time
from pathlib import Path

RECIPES = Path(__file__).parents[1] / "recipes"


@dataclasses.dataclass(frozen=True)
class Cost:
    """The cost of a run: wall and processor seconds, and the largest resident set."""

    seconds: float
    processor_seconds: float
    peak_rss_mb: float


def whole_run(recipe: str, default: str) -> tuple[Path, Cost]:
    """Run `recipe` into the folder named on the command line, or `default`; return the folder and the cost."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else default)
    if folder.exists():
        sys.exit(f"{folder} exists: a run that goes on there would be timed too short; remove it or name another")
    began = time.perf_counter()
    command = [sys.executable, "-m", "prunus.cli", "run", str(RECIPES / recipe), f"output={folder}"]
    subprocess.run(command, check=True)
    seconds, used = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return folder, Cost(seconds, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)
