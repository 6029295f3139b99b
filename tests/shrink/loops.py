"""Small networks, data and plain loops for the tests of `Shrinker`."""

import copy

import torch
from torch import nn

import prunus

STEPS = 24  # of a whole training
EXAMPLE = torch.linspace(-1, 1, 3 * 8 * 8).reshape(1, 3, 8, 8)


class Net(nn.Module):
    """Convolutions, BatchNorm, a residual block, a linear head."""

    def __init__(self, width=12):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU())
        self.body = nn.Sequential(
            nn.Conv2d(width, 2 * width, 3, padding=1), nn.ReLU(), nn.Conv2d(2 * width, width, 3, padding=1)
        )
        self.head = nn.Linear(width, 4)

    def forward(self, images):
        found = self.stem(images)
        return self.head((found + self.body(found)).mean((2, 3)))


class Residual(nn.Module):
    """x + f(x): without f, once a layer of it has vanished."""

    def __init__(self, width):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(width, width, 1), nn.ReLU(), nn.Conv2d(width, width, 1))

    def forward(self, images):
        return images + self.body(images)


def build(kind=Net):
    torch.manual_seed(0)
    return kind()


def batch(step, size=8):
    generator = torch.Generator().manual_seed(step)
    labels = torch.randint(4, (size,), generator=generator)
    images = torch.randn(size, 3, 8, 8, generator=generator)
    return images + labels[:, None, None, None], labels


OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, nesterov=True),
    "adamw": lambda p: torch.optim.AdamW(p, lr=3e-3, amsgrad=True),
}


def shrinker_of(model, optimizer, **settings):
    settings = {"budget": prunus.Budget(macs=0.4), "steps": STEPS} | settings
    return prunus.Shrinker(model, optimizer, EXAMPLE, **settings)


def train(model, optimizer, shrinker, steps=range(STEPS), *, network=None, after=lambda step: None):
    """Train on the batches of `steps`; return the records of the cuts."""
    records = []
    for step in steps:
        images, labels = batch(step)
        loss = nn.functional.cross_entropy((model if network is None else network)(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        record = shrinker.step()
        after(step)
        if record is not None:
            records.append(record)
    return records


def snapshot(model, optimizer, *copies):
    """Return everything that a cut may change: of modules, tensors, gradients, optimizer and copies."""
    tensors = [
        (path, id(tensor), tensor.detach().clone(), None if tensor.grad is None else tensor.grad.clone())
        for network in (model, *copies)
        for path, tensor in (*network.named_parameters(), *network.named_buffers())
    ]
    sizes = [
        {name: value for name, value in vars(module).items() if type(value) in (int, tuple, bool)}
        for network in (model, *copies)
        for module in network.modules()
    ]
    modules = [(path, id(module)) for network in (model, *copies) for path, module in network.named_modules()]
    groups = [{**group, "params": [id(p) for p in group["params"]]} for group in optimizer.param_groups]
    state = copy.deepcopy(optimizer.state_dict()["state"])
    return tensors, sizes, modules, groups, state


def assert_same(first, second):
    assert type(first) is type(second)
    if isinstance(first, torch.Tensor):
        assert first.shape == second.shape and torch.equal(first, second)
    elif isinstance(first, dict):
        assert first.keys() == second.keys()
        for key in first:
            assert_same(first[key], second[key])
    elif isinstance(first, list | tuple):
        assert len(first) == len(second)
        for one, other in zip(first, second, strict=True):
            assert_same(one, other)
    else:
        assert first == second
