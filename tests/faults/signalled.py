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
import torch

import prunus
from prunus import cli

NETWORK = ["tiny:TinySegmenter", "--shape", "1,3,16,32", "--set", "num_classes=3"]
WEIGHTS = ["tiny:TinySegmenter", "--weights", "wide.pt", "--budget", "macs=0.5"]
RESUMED = {  # each leaves what it trains in the folder of its name, and resumes from there
    "run": ["run", "tiny.yaml", "output=run"],
    "shrink": ["shrink", *WEIGHTS, "--recipe", "tiny.yaml", "output=shrink"],
    "sweep": ["sweep", "tiny.yaml", "--budgets", "0.8", "0.5", "output=sweep", "train.epochs=2", "baseline=false"],
}
OTHERS = {
    "trace": ["trace", *NETWORK],
    "export": ["export", *NETWORK, "--output", "a.onnx"],
    "bench": ["bench", "a=deployed.onnx", "b=deployed.onnx", "--repeats", "200"],
    "report": ["report", "finished"],
    "compare": ["compare", "deployed.onnx", "deployed.onnx", "--data", "tiny.yaml"],
    "quantize": ["quantize", "deployed.onnx", "--data", "tiny.yaml", "--output", "int8.onnx", "--max-drop", "100"],
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


def weights(folder: Path) -> list[str]:
    """Return the digests of all narrow networks in `folder`."""
    return [hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.rglob("narrow/weights.*"))]


def main(here: Path, moments: int, seed: int, *others: str) -> dict[str, object]:
    """Half of the moments go to a run, the rest to the other commands."""
    random.seed(seed)
    tiny.write_recipe(here)
    torch.save(tiny.build().state_dict(), here / "wide.pt")
    commands = RESUMED | OTHERS
    if not others:
        commands["run"] = [*commands["run"], "train.epochs=2", "baseline=false"]
    seconds, expected = {"run": undisturbed(here, commands["run"])}, {"run": weights(here / "run")}
    shutil.copy(here / "run" / "narrow.onnx", here / "deployed.onnx")
    (here / "run").rename(here / "finished")
    for name in others:
        seconds[name] = undisturbed(here, commands[name])
        if name in RESUMED:
            expected[name] = weights(here / name)
            shutil.rmtree(here / name)
    assert all(expected.values())
    told = {"sent": dict.fromkeys(seconds, 0), "wrong": [], "slowest": [0.0, ""], "runs": 0, "equal": 0}
    while True:
        enough = sum(told["sent"].values()) >= moments
        begun = [name for name in expected if (here / name).exists()]
        if enough and not begun:
            return told
        name = begun[0] if enough else random.choice([*["run"] * max(1, len(others)), *others])
        number = random.choice([signal.SIGTERM, signal.SIGINT])
        after = 1e9 if enough else random.uniform(0, seconds[name])
        code, took = signalled(here, commands[name], number, after)
        if took is not None and code != 0:  # 0: it came when all was done
            told["sent"][name] += 1
            told["slowest"] = max(told["slowest"], [took, f"{name}: {(here / 'output').read_text()[-300:]}"])
        if code not in (0, 128 + number, -number):
            told["wrong"].append((name, code, number, (here / "output").read_text()[-2000:]))
            return told
        if name in RESUMED and code == 0:
            told["runs"] += 1
            told["equal"] += weights(here / name) == expected[name]
            shutil.rmtree(here / name)


if __name__ == "__main__":
    assert prunus.run and prunus.export_onnx and prunus.trace  # imported before any child is forked
    import onnxruntime  # noqa: F401
    import torchvision  # noqa: F401

    print(json.dumps(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), *sys.argv[4:])))
