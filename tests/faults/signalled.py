"""Sends SIGTERM and SIGINT to commands at random moments: `python signalled.py FOLDER MOMENTS SEED [COMMAND ...]`.

It prints what came of it as JSON. The commands run in forked children, with everything imported before. A run that was
stopped is started again by the same command until it ends; its weights are compared with those of the undisturbed run,
and the folder begins anew.
"""

import hashlib
import json
import os
import random
import shutil
import signal
import sys
import time
import traceback
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
import tiny

import prunus
from prunus import cli

NETWORK = ["tiny:TinySegmenter", "--shape", "1,3,16,32", "--set", "num_classes=3"]
OTHERS = {
    "trace": ["trace", *NETWORK],
    "export": ["export", *NETWORK, "--output", "a.onnx"],
    "bench": ["bench", "a=deployed.onnx", "b=deployed.onnx", "--repeats", "200"],
    "report": ["report", "undisturbed"],
}


def forked(here: Path, arguments: list[str]) -> int:
    """Return the process number of a child that runs the command line in the folder `here`."""
    process = os.fork()
    if process == 0:
        code = 99
        os.chdir(here)
        output = os.open("output", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(output, 1)
        os.dup2(output, 2)
        random.seed(os.getpid())  # each attempt starts from another state
        try:
            code = cli.main(arguments)
        except BaseException:
            os.write(2, traceback.format_exc().encode())
        finally:
            os._exit(code)
    return process


def ended(process: int) -> bool:
    """Whether the child has ended; it is left to be waited for."""
    return os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def signalled(here: Path, arguments: list[str], number: int, after: float) -> tuple[int, float | None]:
    """Return the exit code, and the seconds from the signal to the end; None where the command ended before it."""
    process, until = forked(here, arguments), time.monotonic() + after
    while time.monotonic() < until and not ended(process):
        time.sleep(0.001)
    sent = None if ended(process) else time.monotonic()
    if sent is not None:
        os.kill(process, number)
    code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    return code, None if sent is None else time.monotonic() - sent


def undisturbed(here: Path, arguments: list[str]) -> float:
    began = time.monotonic()
    code = os.waitstatus_to_exitcode(os.waitpid(forked(here, arguments), 0)[1])
    assert code == 0, (here / "output").read_text()
    return time.monotonic() - began


def weights(folder: Path) -> str:
    return hashlib.sha256((folder / "narrow" / "weights.safetensors").read_bytes()).hexdigest()


def main(here: Path, moments: int, seed: int, *others: str) -> dict[str, object]:
    """Two moments of three go to a run, the rest to the other commands."""
    random.seed(seed)
    tiny.write_recipe(here)
    run = ["run", "tiny.yaml", "output=run", *([] if others else ["train.epochs=2", "baseline=false"])]
    seconds = {"run": undisturbed(here, [*run, "output=undisturbed"])}
    shutil.copy(here / "undisturbed" / "narrow.onnx", here / "deployed.onnx")
    expected = weights(here / "undisturbed")
    seconds |= {name: undisturbed(here, OTHERS[name]) for name in others}
    told = {"sent": dict.fromkeys(seconds, 0), "wrong": [], "slowest": [0.0, ""], "runs": 0, "equal": 0}
    while sum(told["sent"].values()) < moments or (here / "run").exists():
        enough = sum(told["sent"].values()) >= moments
        name = "run" if enough or not others or random.random() < 2 / 3 else random.choice(others)
        number = random.choice([signal.SIGTERM, signal.SIGINT])
        after = 1e9 if enough else random.uniform(0, seconds[name])
        code, took = signalled(here, run if name == "run" else OTHERS[name], number, after)
        if took is not None and code != 0:  # 0: it came when all was done
            told["sent"][name] += 1
            told["slowest"] = max(told["slowest"], [took, f"{name}: {(here / 'output').read_text()[-300:]}"])
        if code not in (0, 128 + number, -number):
            told["wrong"].append((name, code, number, (here / "output").read_text()[-2000:]))
            break
        if name == "run" and code == 0:
            told["runs"] += 1
            told["equal"] += weights(here / "run") == expected
            shutil.rmtree(here / "run")
    return told


if __name__ == "__main__":
    assert prunus.run and prunus.export_onnx and prunus.trace  # imported before any child is forked
    import onnxruntime  # noqa: F401
    import torchvision  # noqa: F401

    print(json.dumps(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), *sys.argv[4:])))
