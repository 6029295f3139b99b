"""What it costs to share the cores: a step and latencies, alone and beside a busy process, by OpenMP setting.

torch's OpenMP threads spin at a barrier while they wait for each other. Beside another busy process one of them has no
core, and the others spin until it gets one. `prunus.cli.process.wait_politely` bounds the spinning; this measures it.

Each setting runs in processes of its own, since OpenMP reads its settings when torch is loaded. Settings and conditions
take turns, round after round, so that other work on the machine hits all alike. Run it on a machine with nothing else
to do; it takes some ten minutes:

    python benchmarks/busy_machine.py                # writes benchmarks/results/busy_machine.json
"""

import argparse
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

from prunus.cli.process import SET_BY_USER, WAITING

RESULT = Path(__file__).parent / "results" / "busy_machine.json"
BUSY = "while True: pass"
SETTINGS: dict[str, dict[str, str]] = {
    "as OpenMP has it": {"OMP_WAIT_POLICY": ""},  # empty: set, so that the command line leaves it alone
    "GOMP_SPINCOUNT=1000": {"GOMP_SPINCOUNT": "1000"},
    "GOMP_SPINCOUNT=20000": {"GOMP_SPINCOUNT": "20000"},
    "GOMP_SPINCOUNT=100000": {"GOMP_SPINCOUNT": "100000"},
    "OMP_WAIT_POLICY=PASSIVE": {"OMP_WAIT_POLICY": "PASSIVE"},
    "the command line's": dict(WAITING),
    "one thread": {"OMP_WAIT_POLICY": "", "OMP_NUM_THREADS": "1"},
}


def measured(kind: str, threads: int) -> float:
    """Return the median seconds of a training step, or of an inference on a backend, in this process."""
    import torch

    from prunus.deploy import latency_ms
    from prunus.models.erfnet import ERFNet

    torch.manual_seed(0)
    torch.set_num_threads(threads)
    model, images = ERFNet(num_classes=11), torch.randn(4, 3, 128, 256)  # the demo's
    if kind != "step":
        return latency_ms(model.eval(), images[:1], backend=kind, threads=threads, repeats=15) / 1000
    model.train()
    optimizer, seconds = torch.optim.Adam(model.parameters()), []
    for _ in range(6):
        began = time.perf_counter()
        optimizer.zero_grad()
        model(images).square().mean().backward()
        optimizer.step()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds[1:])


def in_a_process(kind: str, threads: int, setting: dict[str, str]) -> float:
    environment = {name: value for name, value in os.environ.items() if name not in (*SET_BY_USER, "OMP_NUM_THREADS")}
    command = [sys.executable, __file__, "--measure", kind, "--threads", setting.get("OMP_NUM_THREADS", str(threads))]
    own = {name: value for name, value in setting.items() if value}
    done = subprocess.run(command, env=environment | own, capture_output=True, text=True, check=True)
    return float(done.stdout.splitlines()[-1])


def beside(kind: str, threads: int, setting: dict[str, str], *, busy: int) -> float:
    """Measure beside `busy` processes that do nothing but take time."""
    others = [subprocess.Popen([sys.executable, "-S", "-c", BUSY]) for _ in range(busy)]
    try:
        return in_a_process(kind, threads, setting)
    finally:
        for other in others:
            other.kill()
            other.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--kinds", default="step,torch,onnxruntime,openvino", help="what is timed")
    parser.add_argument("--output", type=Path, default=RESULT)
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(measured(options.measure, options.threads))
        return
    seconds: dict[str, dict[str, dict[str, list[float]]]] = {}
    for turn in range(options.rounds):
        for kind in options.kinds.split(","):
            for name, setting in SETTINGS.items():
                for condition, busy in (("alone", 0), ("beside one busy process", 1)):
                    took = beside(kind, options.threads, setting, busy=busy)
                    found = seconds.setdefault(kind, {}).setdefault(name, {}).setdefault(condition, [])
                    found.append(round(took, 5))
                    print(f"{turn + 1}/{options.rounds} {kind}, {name}, {condition}: {took:.4f} s", flush=True)
    packages = ("prunus", "torch", "onnxruntime", "openvino", "numpy")
    result = {
        "what": "median seconds of a step of the demo's ERFNet (batch 4, 128 x 256), and of one inference, by round",
        "date": time.strftime("%Y-%m-%d"),
        "command": " ".join(["python", "benchmarks/busy_machine.py", *sys.argv[1:]]),
        "cores": os.cpu_count(),
        "threads": options.threads,
        "load_before": os.getloadavg(),
        "processor": platform.processor() or platform.machine(),
        "versions": {"python": platform.python_version(), **{p: importlib.metadata.version(p) for p in packages}},
        "medians": {
            kind: {n: {c: statistics.median(values) for c, values in by.items()} for n, by in settings.items()}
            for kind, settings in seconds.items()
        },
        "seconds": seconds,
    }
    options.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(f"written: {options.output}")


if __name__ == "__main__":
    main()
