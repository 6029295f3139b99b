"""Measure a kit of Prunus on this machine: run `python measure.py` beside kit.json, with only the runtime and numpy.

Every file of the kit is run in turn with a reference, so that a slowdown of the machine affects both. Results are saved
in measured.json after each file; if the script is started again, it resumes. Copy measured.json back into the folder of
the kit, and run `prunus target read` there.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

FORMAT = 1
WARMUP, RUNS, MOST_RUNS = 2, 12, 48  # per file
ENOUGH_MS = 400.0  # milliseconds for all runs of a file and its reference; at least five runs are made
NOISY = 1.3  # 90th percentile of the reference over its minimum, from which a file is measured longer

Times = "dict[str, float]"  # milliseconds of a run by operator


class OnnxRuntime:
    """A file in ONNX Runtime; its profile is read when all runs are done."""

    layout = ("ReorderInput", "ReorderOutput", "QuantizeLinear", "DequantizeLinear")

    @staticmethod
    def version() -> str:
        """Return the version of the runtime."""
        import onnxruntime

        return str(onnxruntime.__version__)

    def __init__(self, path: Path, threads: int, profile: bool) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.log_severity_level = 3
        options.add_session_config_entry("session.force_spinning_stop", "1")
        self._folder = tempfile.TemporaryDirectory()
        if profile:
            options.enable_profiling = True
            options.profile_file_prefix = str(Path(self._folder.name) / "profile")
        self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self._names = [value.name for value in self._session.get_inputs()]

    def run(self, inputs: list[np.ndarray]) -> None:
        """Run once."""
        self._session.run(None, dict(zip(self._names, inputs)))  # noqa: B905 - older Pythons have no strict

    def operator_ms(self) -> float:
        """Return the least milliseconds of the operators, without changes of layout."""
        events = json.loads(Path(self._session.end_profiling()).read_text(encoding="utf-8"))
        least: dict[str, float] = {}
        for event in events:
            is_kernel = event.get("cat") == "Node" and event["name"].endswith("_kernel_time")
            if is_kernel and event["args"]["op_name"] not in self.layout:
                taken = float(event["dur"]) / 1000
                least[event["name"]] = min(taken, least.get(event["name"], taken))
        return sum(least.values())


class OpenVino:
    """A file in OpenVINO; its profile is read after each run."""

    layout = ("Reorder", "Parameter", "Result", "Constant", "Input", "Output")
    core: Any = None  # one per process: a second one would leave a freed signal stack (OpenVINO 2026.4)

    @staticmethod
    def version() -> str:
        """Return the version of the package, as on package indexes."""
        from importlib.metadata import version

        return version("openvino")

    def __init__(self, path: Path, threads: int, profile: bool) -> None:
        import openvino

        settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": "1",
            "INFERENCE_NUM_THREADS": str(threads),
            "INFERENCE_PRECISION_HINT": "f32",
            "ENABLE_CPU_PINNING": "NO",
        }
        settings.update({"PERF_COUNT": "YES"} if profile else {})
        OpenVino.core = OpenVino.core or openvino.Core()
        self._compiled = OpenVino.core.compile_model(str(path), "CPU", settings)
        self._request = self._compiled.create_infer_request()
        self._profile, self._least = profile, {}  # type: ignore[var-annotated]

    def run(self, inputs: list[np.ndarray]) -> None:
        """Run once."""
        self._request.infer(inputs)
        for node in self._request.profiling_info if self._profile else ():
            if node.node_type not in self.layout:
                taken = 1000 * node.real_time.total_seconds()
                self._least[node.node_name] = min(taken, self._least.get(node.node_name, taken))

    def operator_ms(self) -> float:
        """Return the least milliseconds of the operators, without changes of layout."""
        return float(sum(self._least.values()))


RUNTIMES: dict[str, Any] = {"onnxruntime": OnnxRuntime, "openvino": OpenVino}


def processor() -> str:
    """Return the name of this machine's processor."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def timed(item: dict[str, Any], reference: dict[str, Any], folder: Path, runtime: Any, threads: int) -> dict[str, Any]:
    """Return the milliseconds of a file and of the reference meanwhile, and the reference's spread."""
    random = np.random.default_rng(0)
    sessions, given = [], []
    for each in (item, reference):
        sessions.append(runtime(folder / each["file"], threads, each is item and item["kind"] == "unit"))
        given.append([random.standard_normal(shape, dtype=np.float32) for shape in each["shapes"]])
    taken: list[list[float]] = [[], []]
    began, rounds = time.perf_counter(), 0
    while rounds < WARMUP + MOST_RUNS:
        for session, inputs, times in zip(sessions, given, taken):  # noqa: B905
            start = time.perf_counter()
            session.run(inputs)
            times.append(1000 * (time.perf_counter() - start))
        rounds += 1
        counted = rounds - WARMUP
        enough = counted >= RUNS or (counted >= 5 and 1000 * (time.perf_counter() - began) > ENOUGH_MS)
        if enough and (counted >= 3 * RUNS or spread(taken[1][WARMUP:]) < NOISY):
            break
    unit = item["kind"] == "unit"
    own = sessions[0].operator_ms() if unit else float(np.median(taken[0][WARMUP:]))
    beside = float(min(taken[1][WARMUP:]) if unit else np.median(taken[1][WARMUP:]))
    return {"ms": own, "reference_ms": beside, "spread": spread(taken[1][WARMUP:]), "rounds": rounds - WARMUP}


def spread(times: list[float]) -> float:
    """Return the 90th percentile over the minimum."""
    return float(np.percentile(times, 90) / min(times)) if times else float("inf")


def measured(folder: Path, kit: dict[str, Any], machine: dict[str, Any]) -> dict[str, Any]:
    """Return the measurements so far; exit if they are of another kit or machine."""
    path = folder / "measured.json"
    if not path.exists():
        return {"format": FORMAT, "kit": kit["id"], "machine": machine, "items": {}}
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    for what, there, here in (("kit", found["kit"], kit["id"]), ("machine", found["machine"], machine)):
        if there != here:
            sys.exit(f"{path} is of another {what} ({there}, here {here}): move it away, and start again")
    return found


def say(text: str) -> None:
    """Print a line and flush it, so that a pipe shows it at once."""
    print(text, flush=True)


def main(tell: Callable[[str], None] = say) -> None:
    """Measure every file that has not been measured yet."""
    folder = Path(__file__).resolve().parent
    kit = json.loads((folder / "kit.json").read_text(encoding="utf-8"))
    if kit.get("format") != FORMAT:
        sys.exit(f"kit.json has format {kit.get('format')!r}, this script reads {FORMAT}: copy the whole folder again")
    target = kit["target"]
    runtime = RUNTIMES[target["backend"]]
    try:
        version = runtime.version()
    except ImportError as error:
        sys.exit(f"{target['backend']} is not installed here ({error}): pip install {target['backend']} numpy")
    machine = {
        "processor": processor(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "numpy": np.__version__,
        "version": version,
        "threads": target["threads"],
        "precision": target["precision"],
    }
    found = measured(folder, kit, machine)
    items = kit["items"]
    for number, item in enumerate(items):
        if item["file"] in found["items"]:
            continue
        found["items"][item["file"]] = timed(item, items[0], folder, runtime, target["threads"])
        aside = folder / "measured.json.part"
        aside.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        aside.replace(folder / "measured.json")
        tell(f"{number + 1} of {len(items)}: {item['file']} {found['items'][item['file']]['ms']:.4g} ms")
    tell(f"done: bring {folder / 'measured.json'} back, and read it with `prunus target read`")


if __name__ == "__main__":
    main()
