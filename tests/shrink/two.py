"""Scenarios in two processes: python two.py FOLDER; what each process returns goes to FOLDER/NAME-RANK.json."""

import functools
import hashlib
import json
import sys
from pathlib import Path

import loops
import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

sys.path.insert(0, str(Path(__file__).parents[1]))
from forked import COUNT, in_two_processes

import prunus
from prunus.errors import TrainingError


def digest(model):
    """Of the parameters: between two cuts each process has BatchNorm's statistics of its own images."""
    content = b"".join(tensor.detach().contiguous().numpy().tobytes() for tensor in model.parameters())
    return hashlib.sha256(content).hexdigest()


def trained(rank, *, wrap_anew=True, micro_batches=1, stop=loops.STEPS, **settings):
    """Train as one of two; each takes its half of every batch."""
    model = loops.build()
    network = DistributedDataParallel(model)
    optimizer = loops.OPTIMIZERS["adamw"](model.parameters())
    shrinker, cuts = loops.shrinker_of(model, optimizer, **settings), 0
    for step in range(stop):
        images, labels = loops.batch(step)
        size = 4 // micro_batches
        optimizer.zero_grad()
        for number in range(micro_batches):
            part = slice(4 * rank + number * size, 4 * rank + (number + 1) * size)
            network.require_backward_grad_sync = number == micro_batches - 1  # as no_sync() sets it
            (nn.functional.cross_entropy(network(images[part]), labels[part]) / micro_batches).backward()
        optimizer.step()
        if shrinker.step() is not None:
            cuts += 1
            network = DistributedDataParallel(model) if wrap_anew else network
    return model, shrinker, cuts


def wrapped_anew(rank):
    model, shrinker, cuts = trained(rank)
    return {"weights": digest(model), "macs": shrinker.groups.macs(), "cuts": cuts}


def accumulated(rank):
    model, shrinker, cuts = trained(rank, micro_batches=2)
    return {"weights": digest(model), "macs": shrinker.groups.macs(), "cuts": cuts}


def not_wrapped_anew(rank):
    try:
        trained(rank, wrap_anew=False)
    except TrainingError as error:
        return str(error)


def timed(rank):
    """Process 0 alone measures."""

    def meter(network):
        assert rank == 0
        return sum(parameter.numel() for parameter in network.parameters()) / 1000

    model, shrinker, cuts = trained(rank, budget=prunus.Budget(latency=0.5), meter=meter if rank == 0 else None)
    return {"weights": digest(model), "macs": shrinker.groups.macs(), "cuts": cuts}


SCENARIOS = (wrapped_anew, accumulated, not_wrapped_anew, timed)


def in_one_process(function, folder, rank, port):
    store = f"tcp://127.0.0.1:{port}"
    distributed.init_process_group("gloo", init_method=store, rank=rank, world_size=COUNT)
    result = function(rank)
    (folder / f"{function.__name__}-{rank}.json").write_text(json.dumps(result))
    distributed.destroy_process_group()


if __name__ == "__main__":
    torch.set_num_threads(1)
    codes = [in_two_processes(functools.partial(in_one_process, function, Path(sys.argv[1]))) for function in SCENARIOS]
    sys.exit(any(map(any, codes)))
