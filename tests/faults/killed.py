"""Trains in forked children and kills them: `python killed.py FOLDER KILLS SEED` prints what came of it as JSON.

A child is killed at a random moment of its run, every second one while it writes a checkpoint. The next one goes on
in the same folder; one that ends is compared with the undisturbed training, and the folder begins anew.
"""

import contextlib
import hashlib
import json
import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
import tiny

from prunus.train import checkpoint
from prunus.train.fit import fit
from prunus.train.lock import lock

TRAINED = "trained"


def child(folder: Path, reports: int) -> None:
    """Train; report each checkpoint once it is written, and the digest of the weights at the end."""
    write = checkpoint.write

    def told(*arguments, **keywords):
        path = write(*arguments, **keywords)
        os.write(reports, f"{path.name}\n".encode())
        return path

    checkpoint.write = told
    with lock(folder):
        model = fit(tiny.training(folder, ema_decay=0.9, epochs=8), tiny.build(), tiny.example(), tiny.SHRINK).model
    content = b"".join(tensor.contiguous().numpy().tobytes() for tensor in model.state_dict().values())
    os.write(reports, f"{TRAINED} {hashlib.sha256(content).hexdigest()}\n".encode())


def forked(folder: Path) -> tuple[int, int]:
    """Return the child's process number and the end of the pipe on which it reports."""
    reading, writing = os.pipe()
    process = os.fork()
    if process == 0:
        with contextlib.suppress(BaseException):
            torch.manual_seed(random.randrange(1000))  # each attempt starts from another state
            child(folder, writing)
            os._exit(0)
        os._exit(1)
    os.close(writing)
    return process, reading


def reported(reading: int) -> list[str]:
    """Return what the child reported, after its end."""
    with os.fdopen(reading) as file:
        return file.read().split("\n")[:-1]


def undisturbed(folder: Path) -> tuple[str, float]:
    began = time.monotonic()
    process, reading = forked(folder)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 0
    return reported(reading)[-1], time.monotonic() - began


def kill(process: int, folder: Path, left: set[tuple[Path, int]], after: float, *, while_writing: bool) -> bool:
    """Kill the child `after` seconds, or at the next checkpoint written from then on; say whether one was.

    What earlier children have `left` half written is none: the next write takes it away.
    """
    until = time.monotonic() + after
    while time.monotonic() < until and not ended(process):
        time.sleep(0.001)
    while while_writing and not ended(process) and not half_written(folder) - left:
        pass
    writing = bool(half_written(folder) - left)
    os.kill(process, signal.SIGKILL)
    return writing


def half_written(folder: Path) -> set[tuple[Path, int]]:
    """Return the folders of checkpoints that are not whole, and when each last changed."""
    found = set()
    for path in folder.glob("checkpoints/*/.*.writing"):
        with contextlib.suppress(FileNotFoundError):  # renamed meanwhile
            found.add((path, path.stat().st_ctime_ns))
    return found


def ended(process: int) -> bool:
    """Whether the child has ended; it is left to be waited for."""
    return os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def main(here: Path, kills: int, seed: int) -> dict[str, object]:
    random.seed(seed)
    expected, seconds = undisturbed(here / "undisturbed")
    told = {"kills": 0, "while_writing": 0, "runs": 0, "equal": 0, "lost": []}
    folder, saved = here / "run", ""
    while told["kills"] < kills or told["runs"] == 0:
        left = half_written(folder)
        process, reading = forked(folder)
        if told["kills"] < kills:
            while_writing = told["kills"] % 2 == 1
            written = kill(process, folder, left, random.uniform(0, 0.7 * seconds), while_writing=while_writing)
        code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        lines = reported(reading)
        if code == -signal.SIGKILL:
            told["kills"] += 1
            told["while_writing"] += written
            saved = lines[-1] if lines else saved
            found = checkpoint.latest(folder / "checkpoints" / "narrow")
            if saved and not saved.startswith(TRAINED) and (found is None or found.path.name < saved):
                told["lost"].append(saved)
        else:
            assert code == 0, code
            told["runs"] += 1
            told["equal"] += lines[-1] == expected
            shutil.rmtree(folder)
            saved = ""
    return told


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))))
