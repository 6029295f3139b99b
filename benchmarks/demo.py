"""Claim: `make demo` takes under 6 minutes on 2 cores and 4 GB, and meets its three figures.

    python benchmarks/demo.py [folder, runs/benchmark-demo]

Runs the demo's command as a process of its own into the folder, measures its wall time and its peak memory (largest
resident set of it and of its children), takes the figures from the run's records, and times the drawing of street
scenes. The report stays in the folder.
"""

import datetime
import json
import resource
import shlex
import subprocess
import sys
import time
from pathlib import Path

from camvid import figures, ratios

from prunus.data.street import render
from prunus.pipeline.environment import hardware, versions

HERE = Path(__file__).parent


def scenes_per_second(num: int = 100) -> float:
    """Return how many 256x128 scenes one core draws in a second of its own time."""
    render(0, 0, (128, 256))
    began = time.process_time()
    for index in range(num):
        render(0, index, (128, 256))
    return num / (time.process_time() - began)


def main() -> None:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/benchmark-demo")
    if folder.exists():
        sys.exit(f"{folder} exists: a run that goes on there would be timed too short; remove it or name another")
    command = ["-m", "prunus.cli", "run", str(HERE.parent / "recipes/street_erfnet.yaml"), f"output={folder}"]
    began = time.perf_counter()
    subprocess.run([sys.executable, *command], check=True)
    seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    run = figures(folder, 0)
    result = {
        "date": datetime.date.today().isoformat(),
        "command": shlex.join(["python", *sys.argv]),
        "versions": versions(),
        "hardware": hardware(),
        "seconds": seconds,
        "peak_rss_mb": peak,
        "scenes_per_second": scenes_per_second(),
        "narrow_vs_wide": ratios(run),
        "run": run,
    }
    (HERE / "results/demo.json").write_text(json.dumps(result, indent=1), encoding="utf-8")
    print(json.dumps({key: result[key] for key in ("seconds", "peak_rss_mb", "scenes_per_second", "narrow_vs_wide")}))


if __name__ == "__main__":
    main()
