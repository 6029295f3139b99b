"""Scenarios in two processes, forked after all is imported, so that each takes a second.

python team.py FOLDER           runs every scenario in two processes; what each returns goes to FOLDER/results.json
torchrun ... team.py FOLDER     is one of torchrun's processes, of the scenario that PRUNUS_TEAM names
"""

import contextlib
import dataclasses
import functools
import hashlib
import json
import os
import signal
import sys
import time
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import TensorDataset

sys.path.insert(0, str(Path(__file__).parents[1]))
import tiny
from forked import COUNT, in_two_processes

from prunus.budget import Budget
from prunus.budget.controller import Controller
from prunus.errors import InterruptedTrainingError, PrunusError
from prunus.records import EpochRecord, Recorder, Silent, read
from prunus.tasks.classification import BoundClassification
from prunus.train.distributed import joined
from prunus.train.evaluate import evaluate
from prunus.train.fit import fit

STEPS = 4


class MeanLoss:
    """The tiny task with a plain mean over pixels, so that a batch's loss is the mean of its halves'."""

    def __init__(self, task):
        self.task, self.main_metric, self.metrics = task, task.main_metric, task.metrics

    def training_loss(self, inputs, output, target):
        wanted = nn.functional.one_hot(target % output.shape[1], output.shape[1]).movedim(-1, 1)
        return (output.softmax(1) - wanted).square().mean()


def steady():
    """A network without BatchNorm and dropout, which would see a batch and its halves differently."""
    torch.manual_seed(0)
    classes = len(tiny.DATA.class_names)
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, classes, 1))


def digest(model):
    content = b"".join(tensor.detach().contiguous().numpy().tobytes() for tensor in model.state_dict().values())
    return hashlib.sha256(content).hexdigest()


def begin(processes, folder, ticked, **changes):
    recorder = Recorder if processes.first else Silent
    own = {"recorder": recorder(folder), "processes": processes, "ticked": ticked}
    return dataclasses.replace(tiny.training(folder.parent / "unused", **changes), folder=folder, **own)


def trained(processes, folder, *, task=None, model=None, ticked=lambda *told: None, **changes):
    """Train in `folder`, shrinking unless a model is given."""
    training = begin(processes, folder, ticked, **changes)
    if task is not None:
        training = dataclasses.replace(training, task=task(training.task))
    return fit(training, model or tiny.build(), tiny.example(), tiny.SHRINK if model is None else None)


def as_one(processes, folder):
    """The same training, here by all and there by one."""
    model = trained(processes, folder, task=MeanLoss, model=steady(), epochs=2).model
    told = [record for record in read(folder) if isinstance(record, EpochRecord)] if processes.first else []
    weights = [value for parameter in model.parameters() for value in parameter.flatten().tolist()]
    return {"losses": [record.loss for record in told], "metrics": [r.metrics for r in told], "weights": weights}


def metrics(processes, folder):
    """Of two tasks, on splits that cannot be halved."""
    torch.manual_seed(0)
    scores, labels = torch.randn(13, 7), torch.randint(0, 6, (13,))  # class 6 does not occur
    settings = dataclasses.replace(tiny.TRAIN, batch_size=3)
    task = BoundClassification(class_names="abcdefg")
    told = evaluate(nn.Identity(), task, TensorDataset(scores, labels), settings, processes)
    split = torch.utils.data.Subset(tiny.DATA.train(), range(7))
    return [told, evaluate(tiny.build(), tiny.training(folder / "unused").task, split, settings, processes)]


def shrinking(processes, folder):
    fitted = trained(processes, folder, ema_decay=0.9)
    return {"weights": digest(fitted.model), "plan": fitted.plan.to_json()}


def interrupted(processes, folder):
    """SIGTERM reaches the second process alone."""

    def tick(name, step, steps, loss):
        if step == 2 * STEPS + 2 and not processes.first:
            os.kill(os.getpid(), signal.SIGTERM)

    try:
        trained(processes, folder, ema_decay=0.9, ticked=tick)
    except InterruptedTrainingError as error:
        said = str(error)
    torch.manual_seed(99)  # another process would have another state
    return {"said": said, "weights": digest(trained(processes, folder, ema_decay=0.9).model)}


def begun(processes, folder):
    """Interrupted, to be finished by one alone."""

    def tick(name, step, steps, loss):
        if step == 2 * STEPS + 2:
            os.kill(os.getpid(), signal.SIGTERM)

    with contextlib.suppress(InterruptedTrainingError):
        trained(processes, folder, ticked=tick)


def different(processes, folder):
    """One weight of the second process goes astray under pressure."""
    model, trained = tiny.build(), []
    model.register_forward_hook(lambda module, *given: trained.append(module))

    def tick(name, step, steps, loss):
        if step == STEPS + 1 and not processes.first:
            with torch.no_grad():
                trained[-1].decoder.bias[0] += 1e-6

    try:
        fit(begin(processes, folder, tick), model, tiny.example(), tiny.SHRINK)
    except PrunusError as error:
        return str(error)


def halved(processes, folder):
    """The forward pass in bfloat16."""
    return digest(trained(processes, folder, precision="bfloat16", ema_decay=0.9).model)


def uneven(processes, folder):
    try:
        trained(processes, folder, batch_size=5)
    except PrunusError as error:
        return str(error)


def restarted(processes, folder):
    """The second process kills itself, once."""

    def tick(name, step, steps, loss):
        if step == 2 * STEPS + 2 and not processes.first and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
            os.kill(os.getpid(), signal.SIGKILL)

    return digest(trained(processes, folder, ema_decay=0.9, ticked=tick).model)


def slowly(processes, folder):
    """Steps of a fifth of a second."""
    return digest(trained(processes, folder, ema_decay=0.9, ticked=lambda *told: time.sleep(0.2)).model)


def timed(processes, folder):
    """A budget in milliseconds, which the first process alone measures; then one that nothing meets."""

    def meter(model):
        assert processes.first
        return sum(parameter.numel() for parameter in model.parameters()) / 1000

    def shrunk(name, latency_ms):
        training = dataclasses.replace(begin(processes, folder / name, lambda *told: None), meter=meter)
        controller = Controller(budget=Budget(latency_ms=latency_ms), begin=0.25, end=0.75)
        return fit(training, tiny.build(), tiny.example(), controller).model

    fitted = shrunk("met", 5.0)
    try:
        shrunk("missed", 0.001)
    except PrunusError as error:
        return {"weights": digest(fitted), "params": sum(p.numel() for p in fitted.parameters()), "said": str(error)}


SCENARIOS = (as_one, metrics, shrinking, interrupted, begun, different, halved, uneven, timed)


def in_one_process(function, folder, rank, port):
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(COUNT)}
    os.environ |= {"LOCAL_WORLD_SIZE": str(COUNT), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    with joined(torch.device("cpu"), 60) as processes:
        result = function(processes, folder / function.__name__)
    (folder / f"{function.__name__}-{rank}.json").write_text(json.dumps(result))


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    if "TORCHELASTIC_RESTART_COUNT" in os.environ:
        function, timeout_s = {"restarted": (restarted, 60), "slowly": (slowly, 10)}[os.environ["PRUNUS_TEAM"]]
        with joined(torch.device("cpu"), timeout_s) as processes:
            result = function(processes, folder / function.__name__)
        (folder / f"{function.__name__}-{processes.index}.json").write_text(json.dumps(result))
    else:
        codes = [in_two_processes(functools.partial(in_one_process, function, folder)) for function in SCENARIOS]
        sys.exit(any(map(any, codes)))
