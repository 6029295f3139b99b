"""The process in which `peak_memory` measures; run with -m and a request in JSON, prints JSON."""

import contextlib
import gc
import json
import resource
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from prunus import backends
from prunus.backends import Backend, Network

_RUNS = 3
_STATUS = Path("/proc/self/status")
_RESET = Path("/proc/self/clear_refs")


def probe(request: dict[str, Any]) -> dict[str, float]:
    """Run the first network, then the one to measure, and return the peak memory of the second."""
    backend = backends.find(request["backend"])
    if (reason := backend.absence()) is not None:
        raise SystemExit(reason)
    _run(backend, Path(request["first_network"]), _zeros(request["first_shapes"]), request["threads"])
    inputs = _zeros(request["shapes"])
    gc.collect()
    with contextlib.suppress(OSError):  # not allowed everywhere; the first network's peak then counts too
        _RESET.write_text("5", encoding="ascii")  # see proc(5): resets VmHWM to VmRSS
    before = _memory_mb("VmRSS")
    _run(backend, Path(request["network"]), inputs, request["threads"])
    return {"peak_memory_mb": max(_memory_mb("VmHWM") - before, 0.0)}


def _zeros(shapes: list[list[int]]) -> list[np.ndarray]:
    return [np.zeros(shape, dtype=np.float32) for shape in shapes]


def _run(backend: Backend, path: Path, inputs: list[np.ndarray], threads: int) -> None:
    network: Network = torch.export.load(path).module() if backend.reads_modules else path
    with backend.load(network, [array.shape for array in inputs], threads) as session:
        for _ in range(_RUNS):
            session.run(inputs)


def _memory_mb(field: str) -> float:
    """Return VmRSS (resident now) or VmHWM (its peak) in MB; without /proc, getrusage's peak."""
    if not _STATUS.exists():
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6
    for line in _STATUS.read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise SystemExit(f"{_STATUS} does not state {field}")


if __name__ == "__main__":
    print(json.dumps(probe(json.loads(sys.argv[1]))))
