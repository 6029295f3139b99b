"""Whether a network does the same in training as in evaluation."""

import functools
import types

import nets
import pytest
import torch
from idioms import images
from torch import nn
from torch.nn import functional as F

import prunus
from prunus.compat import torchvision
from prunus.graph.compare import same_code
from prunus.program import ReadError, read


class DropPath(nn.Module):
    """Stochastic depth by hand."""

    def forward(self, x):
        if not self.training:
            return x
        return x * x.new_empty(x.shape[0], 1, 1, 1).bernoulli_(0.9).div_(0.9)


class Noise(nn.Module):
    """Added noise is no dropout: zero does not stay zero."""

    def forward(self, x):
        return x + torch.rand_like(x) if self.training else x


class DroppedOnes(nn.Module):
    """Added ones, most of which dropout sets to zero: not zero."""

    def forward(self, x):
        return x + F.dropout(x.new_ones(x.shape[0], x.shape[1], 1, 1), 0.999) if self.training else x


class Values(nn.Module):
    """Its code asks for values in training alone."""

    def forward(self, x):
        return x * float(x.sum()) if self.training else x


def differs(model):
    """Whether a network does otherwise in training."""
    evaluation, training = (read(model, (images(),), training=mode) for mode in (False, True))
    return not same_code(evaluation, training)


@pytest.mark.parametrize(
    ("network", "expected"),
    [
        (lambda: nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Dropout(0.5)), False),
        (lambda: nn.Sequential(nn.Conv2d(3, 4, 1), DropPath()), False),
        (lambda: torchvision.ops.StochasticDepth(0.5, "row"), False),
        (lambda: nn.Sequential(nn.Conv2d(3, 4, 1), Noise()), True),
        (nets.DeepSupervision, True),
        (nets.Auxiliary, True),
    ],
    ids=["dropout", "drop_path", "stochastic_depth", "noise", "output", "branch"],
)
def test_random_masks_are_not_another_network(network, expected):
    assert differs(network()) is expected


def test_code_that_cannot_be_read_in_training_is_said():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), Values(), nn.Conv2d(4, 2, 1))
    with pytest.raises(ReadError, match=r"has control flow that depends on a tensor's values at .*test_training"):
        read(model, (images(),), training=True)
    assert "not read in training" in prunus.trace(model, images()).notes[0]


def noisy(module, x):
    return x + torch.rand_like(x) if module.training else x


def through(function):
    return lambda module, args, output: function(module, output)


class Functional(nn.Module):
    """Another function's code asks for the mode."""

    def forward(self, x):
        return noisy(self, x)


@functools.cache
def cached(module):
    return module.training


class Made:
    """What the code makes while it runs."""

    def __init__(self, module):
        self.module = module

    def __call__(self, x):
        return noisy(self.module, x)


class Keeps(nn.Module):
    """The code that asks for the mode is kept as a value."""

    def __init__(self, kept):
        super().__init__()
        self.kept = kept

    def forward(self, x):
        kept = self.kept[0] if isinstance(self.kept, list) else self.kept
        return kept(self, x)


class Noisy:
    """An object that is no module."""

    def __call__(self, module, x):
        return x + torch.rand_like(x) if getattr(module, "training", False) else x


def hooked(function):
    layer = nn.Conv2d(3, 4, 1)
    layer.register_forward_hook(function)
    return layer


def replaced():
    layer = nn.Conv2d(3, 4, 1)
    layer.forward = types.MethodType(noisy, layer)
    return layer


@pytest.mark.parametrize(
    "network",
    [
        Functional,
        lambda: Keeps([noisy]),
        lambda: Keeps(lambda module, x: x + torch.rand_like(x) if cached(module) else x),
        lambda: Keeps(lambda module, x: Made(module)(x)),
        lambda: Keeps(functools.partial(noisy)),
        lambda: Keeps(Noisy()),
        lambda: hooked(through(noisy)),
        replaced,
        lambda: nn.utils.spectral_norm(nn.Conv2d(3, 4, 1)),
        lambda: nn.utils.parametrizations.spectral_norm(nn.Conv2d(3, 4, 1)),
    ],
    ids=["function", "list", "cached", "made", "partial", "object", "hook", "replaced", "old_spectral", "spectral"],
)
def test_code_that_asks_for_the_mode_is_found_wherever_it_is(network):
    assert differs(network())


class Anything:
    """It answers to every name, as lazy modules and mocks do."""

    def __getattr__(self, name):
        return self

    def __call__(self, *args):
        return args[0]


ANYTHING = Anything()


def test_objects_that_answer_to_every_name_do_no_harm():
    assert not differs(Keeps(lambda module, x: ANYTHING(x)))


class OneImage(nn.Module):
    """An auxiliary head whose batch norm sees one value a channel."""

    def __init__(self):
        super().__init__()
        self.stem, self.head, self.aux = nn.Conv2d(3, 6, 1), nn.Conv2d(6, 2, 1), nn.Conv2d(6, 4, 8)
        self.norm, self.last = nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1)

    def forward(self, x):
        x = F.relu(self.stem(x))
        return (self.head(x), self.last(self.norm(self.aux(x)))) if self.training else self.head(x)


def test_the_training_graph_is_read_on_one_image():
    groups = prunus.trace(OneImage(), images()[:1])
    assert groups.notes == ()
    assert int(groups.exact.sum()) == 6 + 4


@pytest.mark.parametrize("added", [Noise, DroppedOnes])
def test_random_numbers_are_not_zero(added):
    groups = prunus.trace(nn.Sequential(nn.Conv2d(3, 8, 1), added(), nn.Conv2d(8, 2, 1)), images())
    assert int(groups.exact.sum()) == 0
