"""The cost of sharing cores: a training step and latencies, alone and beside a busy process, by OpenMP setting.

torch's OpenMP threads spin at a barrier while they wait for each other. Beside another busy process one thread has no
core, and the others spin until it gets one. `prunus.cli.process.wait_politely` bounds the spinning; this measures it.

Each setting runs in its own processes, since OpenMP reads its settings when torch is loaded. Settings and conditions
are interleaved, so that other work on the machine affects all equally. Takes at most six minutes, on an idle machine:

    python benchmarks/busy_machine.py                # writes benchmarks/results/busy_machine.json
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from prunus.cli.process import SET_BY_USER, prepare

BUSY = "while True: pass"
COMMAND_LINE, UNSET, ONE_THREAD = "the command line's", "as OpenMP has it", "one thread"
SETTINGS: dict[str, dict[str, str]] = {
    UNSET: {},
    COMMAND_LINE: {},  # set by `prepare`, in the process itself, as the command line does
    "GOMP_SPINCOUNT=1000": {"GOMP_SPINCOUNT": "1000"},
    "GOMP_SPINCOUNT=5000": {"GOMP_SPINCOUNT": "5000"},
    "OMP_WAIT_POLICY=PASSIVE": {"OMP_WAIT_POLICY": "PASSIVE"},
    ONE_THREAD: {},
}
CONDITIONS = {"alone": 0, "beside one busy process": 1}
# ONNX Runtime and OpenVINO have their own thread pools, which OpenMP's settings do not affect.
KINDS = {
    "step": tuple(SETTINGS),
    "torch": (UNSET, COMMAND_LINE, ONE_THREAD),
    "onnxruntime": (COMMAND_LINE,),
    "openvino": (COMMAND_LINE,),
}
STEPS, STEPS_S = 6, 5.0  # limits: steps after the first, or seconds


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
    while len(seconds) < 2 or (len(seconds) <= STEPS and sum(seconds) < STEPS_S):
        began = time.perf_counter()
        optimizer.zero_grad()
        model(images).square().mean().backward()
        optimizer.step()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds[1:])


def in_a_process(kind: str, threads: int, name: str) -> float:
    environment = {key: value for key, value in os.environ.items() if key not in (*SET_BY_USER, "OMP_NUM_THREADS")}
    command = [sys.executable, __file__, "--measure", kind, "--threads", str(1 if name == ONE_THREAD else threads)]
    command += ["--prepare"] if name == COMMAND_LINE else []
    done = subprocess.run(command, env=environment | SETTINGS[name], capture_output=True, text=True, check=True)
    return float(done.stdout.splitlines()[-1])


def beside(kind: str, threads: int, name: str, *, busy: int) -> float:
    """Measure beside `busy` processes that only consume processor time."""
    others = [subprocess.Popen([sys.executable, "-S", "-c", BUSY]) for _ in range(busy)]
    try:
        return in_a_process(kind, threads, name)
    finally:
        for other in others:
            other.kill()
            other.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=6.0, help="no round begins that would end later")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--output", type=Path, help="folder of the result")
    parser.add_argument("--measure", choices=KINDS, help=argparse.SUPPRESS)
    parser.add_argument("--prepare", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.prepare:
        prepare()
    if options.measure:
        print(measured(options.measure, options.threads))
        return
    load, began, rounds = os.getloadavg(), time.monotonic(), 0
    seconds: dict[str, dict[str, dict[str, list[float]]]] = {}
    while not rounds or (time.monotonic() - began) * (rounds + 1) / rounds < 60 * options.minutes:
        rounds += 1
        for kind, names in KINDS.items():
            for name in names:
                for condition, busy in CONDITIONS.items():
                    took = beside(kind, options.threads, name, busy=busy)
                    found = seconds.setdefault(kind, {}).setdefault(name, {}).setdefault(condition, [])
                    found.append(round(took, 5))
                    print(f"round {rounds}, {kind}, {name}, {condition}: {took:.4f} s", flush=True)
    from result import RESULTS, write_result  # imports torch

    medians = {
        kind: {
            name: {condition: statistics.median(all_) for condition, all_ in by.items()} for name, by in names.items()
        }
        for kind, names in seconds.items()
    }
    figures = {
        "what": "median seconds of a step of the demo's ERFNet (batch 4, 128 x 256), and of one inference, by round",
        "threads": options.threads,
        "load_before": load,
        "rounds": rounds,
        "medians": medians,
        "seconds": seconds,
    }
    print(f"written: {write_result('busy_machine', figures, folder=options.output or RESULTS)}")


if __name__ == "__main__":
    main()
