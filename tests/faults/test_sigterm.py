"""A scheduler's SIGTERM with ten seconds of grace, then SIGKILL, as Slurm and Kubernetes send them."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
import torch

from prunus.train import checkpoint
from prunus.train.fit import fit

GRACE = 10.0  # seconds
TRAIN = """
import dataclasses, sys, time
sys.path.insert(0, sys.argv[1])
import tiny
from pathlib import Path
from prunus.train.fit import fit

def tick(name, step, steps, loss):
    if sys.argv[3] == "step":
        time.sleep(0.5)  # a step of a large network
    if step == 5:
        print("now", flush=True)

update = type(tiny.training(Path(sys.argv[2])).task.metrics()).update
def slow(self, output, target):
    if sys.argv[3] == "evaluation":
        print("now", flush=True)
        time.sleep(0.5)
    update(self, output, target)
type(tiny.training(Path(sys.argv[2])).task.metrics()).update = slow

data = dataclasses.replace(tiny.DATA, num_validation=400)  # 100 batches: more than the grace allows
training = dataclasses.replace(tiny.training(Path(sys.argv[2])), ticked=tick, data=data)
fit(training, tiny.build(), tiny.example(), tiny.SHRINK)
"""


@pytest.mark.parametrize("moment", ["evaluation", pytest.param("step", marks=pytest.mark.slow)])
def test_a_checkpoint_is_written_within_the_grace_and_the_run_goes_on_from_it(tmp_path, moment):
    command = [sys.executable, "-c", TRAIN, str(Path(tiny.__file__).parent), str(tmp_path), moment]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "now\n"
        process.send_signal(signal.SIGTERM)
        try:
            _, errors = process.communicate(timeout=GRACE)
        finally:
            process.kill()
    assert "InterruptedTrainingError" in errors and "the checkpoint is written" in errors
    found = checkpoint.latest(tmp_path / "checkpoints" / "narrow")
    progress = found.state["progress"]
    assert (progress["epoch"], progress["step"]) in ([(1, 1), (1, 2)] if moment == "step" else [(0, 4)])
    again = fit(tiny.training(tmp_path), tiny.build(), tiny.example(), tiny.SHRINK).model
    undisturbed = fit(tiny.training(tmp_path / "other"), tiny.build(), tiny.example(), tiny.SHRINK).model
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), undisturbed.parameters(), strict=True))
