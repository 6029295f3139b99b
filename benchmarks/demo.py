"""Claim: `make demo` takes under 6 minutes on 2 cores and 4 GB, and meets its three figures.

    python benchmarks/demo.py [folder, runs/benchmark-demo]

Runs the demo's command in its own process into the folder, measures its wall time and peak memory (largest resident set
of the process and its children), reads the figures from the run's records, and times the rendering of street scenes.
The report stays in the folder.
"""

import dataclasses
import json
import time

from camvid import figures, ratios
from result import write_result
from whole_run import whole_run

from prunus.data.street import render


def scenes_per_second(num: int = 100) -> float:
    """Return how many 256x128 scenes are rendered per second of processor time on one core."""
    render(0, 0, (128, 256))
    began = time.process_time()
    for index in range(num):
        render(0, index, (128, 256))
    return num / (time.process_time() - began)


def main() -> None:
    folder, cost = whole_run("street_erfnet.yaml", "runs/benchmark-demo")
    run = figures(folder, 0)
    result = {
        **dataclasses.asdict(cost),
        "scenes_per_second": scenes_per_second(),
        "narrow_vs_wide": ratios(run),
        "run": run,
    }
    write_result("demo", result)
    print(json.dumps({key: result[key] for key in ("seconds", "peak_rss_mb", "scenes_per_second", "narrow_vs_wide")}))


if __name__ == "__main__":
    main()
