"""A scheduler's SIGTERM, as Slurm and Kubernetes send it: the training ends with the step or the batch it is in.

So the grace need only be longer than one of them and a checkpoint. It is not timed here: a loaded machine would fail.
"""

import subprocess
import sys
from pathlib import Path

import pytest
import tiny
import torch

from prunus.train import checkpoint
from prunus.train.fit import fit

TRAIN = """
import dataclasses, os, signal, sys
sys.path.insert(0, sys.argv[1])
import tiny
from pathlib import Path
from prunus.train.fit import fit

def terminated():
    print("now", flush=True)
    os.kill(os.getpid(), signal.SIGTERM)

def tick(name, step, steps, loss):
    if sys.argv[3] == "step" and step >= 5:
        terminated()

update = type(tiny.training(Path(sys.argv[2])).task.metrics()).update
def counted(self, output, target):
    if sys.argv[3] == "evaluation":
        terminated()
    update(self, output, target)
type(tiny.training(Path(sys.argv[2])).task.metrics()).update = counted

data = dataclasses.replace(tiny.DATA, num_validation=40)  # 10 batches
training = dataclasses.replace(tiny.training(Path(sys.argv[2])), ticked=tick, data=data)
fit(training, tiny.build(), tiny.example(), tiny.SHRINK)
"""


@pytest.mark.parametrize("moment", ["evaluation", "step"])
def test_a_checkpoint_is_written_within_the_grace_and_the_run_goes_on_from_it(tmp_path, moment):
    command = [sys.executable, "-c", TRAIN, str(Path(tiny.__file__).parent), str(tmp_path), moment]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert done.stdout == "now\n"  # no batch and no step was begun after it
    assert "InterruptedTrainingError" in done.stderr and "the checkpoint is written" in done.stderr
    found = checkpoint.latest(tmp_path / "checkpoints" / "narrow")
    progress = found.state["progress"]
    assert (progress["epoch"], progress["step"]) == ((1, 1) if moment == "step" else (0, 4))
    again = fit(tiny.training(tmp_path), tiny.build(), tiny.example(), tiny.SHRINK).model
    undisturbed = fit(tiny.training(tmp_path / "other"), tiny.build(), tiny.example(), tiny.SHRINK).model
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), undisturbed.parameters(), strict=True))
