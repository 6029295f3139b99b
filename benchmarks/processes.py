"""Claim: two processes yield the metrics of one, and their joint decisions cost at most 1 % of an epoch.

    python benchmarks/processes.py

ERFNet shrinks to 40 % of its MACs on rendered street scenes in two processes (gloo). Each process sums the time of the
calls that only several processes need: whether to stop, after each step; which groups are shrunk and cut; comparing the
SHA-256 of plan and weights; the buffers. This includes waiting for the other process, so the smaller of the two sums
counts. The trained network is then evaluated on the validation split by both processes, and by one.
"""

import argparse
import dataclasses
import functools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from result import write_result

from prunus.budget import Budget
from prunus.budget.controller import Controller
from prunus.data import StreetData
from prunus.models.erfnet import ERFNet
from prunus.records import EpochRecord, Recorder, Silent, read
from prunus.shrink.processes import ALONE, Processes
from prunus.tasks.segmentation import Segmentation
from prunus.train.distributed import Question, joined
from prunus.train.evaluate import evaluate
from prunus.train.fit import fit
from prunus.train.job import TrainingJob
from prunus.train.settings import Train

DATA = StreetData(size=(64, 128), num_train=480, num_validation=25, num_test=2)
SETTINGS = Train(epochs=4, batch_size=8, threads=1, device="cpu")
CONTROLLER = Controller(budget=Budget(macs=0.4), begin=0.25, end=0.75)


def counted(spent: dict[str, float], owner: type, name: str) -> None:
    """Make the method `name` of `owner` add its seconds to `spent`."""
    method: Callable[..., Any] = getattr(owner, name)

    @functools.wraps(method)
    def timed(*arguments: Any, **keywords: Any) -> Any:
        began = time.perf_counter()
        try:
            return method(*arguments, **keywords)
        finally:
            spent[name] = spent.get(name, 0.0) + time.perf_counter() - began

    setattr(owner, name, timed)


def one_process(folder: Path) -> None:
    """Train in one of torchrun's processes."""
    spent: dict[str, float] = {}
    for owner, name in (
        (Processes, "share"),
        (Processes, "sync_buffers_"),
        (Processes, "require_same"),
        (Question, "ask"),
    ):
        counted(spent, owner, name)
    with joined(torch.device("cpu"), 600) as processes:
        recorder = (Recorder if processes.first else Silent)(folder)
        task = Segmentation().bind(DATA)
        about: dict[str, Any] = {"data": DATA, "task": task, "recorder": recorder, "processes": processes}
        training = TrainingJob(name="narrow", settings=SETTINGS, seed=0, folder=folder, **about)
        torch.manual_seed(0)
        fitted = fit(training, ERFNet(num_classes=11), DATA.train()[0][0][None], CONTROLLER)
        together, _ = evaluate(fitted.model, task, DATA.validation(), SETTINGS, processes)
        every = processes.gather(spent)
    if processes.first:
        alone, _ = evaluate(fitted.model, task, DATA.validation(), SETTINGS, ALONE)
        (folder / "result.json").write_text(json.dumps({"together": together, "alone": alone, "spent": every}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path)  # only passed to torchrun's processes
    if folder := parser.parse_args().folder:
        one_process(folder)
        return
    with tempfile.TemporaryDirectory() as here:
        command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--rdzv-backend=c10d"]
        command += ["--rdzv-endpoint=127.0.0.1:0", __file__, "--folder", here]
        subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
        found = json.loads((Path(here) / "result.json").read_text())
        seconds = sum(record.seconds for record in read(Path(here)) if isinstance(record, EpochRecord))
    deciding = min(sum(spent.values()) for spent in found["spent"])
    result = {
        "settings": dataclasses.asdict(SETTINGS),
        "claims": {"metrics_equal": found["together"] == found["alone"], "deciding_share": deciding / seconds},
        "training_seconds": seconds,
        **found,
    }
    write_result("processes", result)
    print(json.dumps(result["claims"], indent=1))


if __name__ == "__main__":
    main()
