"""An expanded network is trained through what it contracts to: the same outputs, gradients and weights, for less."""

import contextlib
import copy

import pytest
import tiny
import torch
from torch import nn
from torch.nn.utils import parametrizations
from torch.utils.checkpoint import checkpoint

import prunus
from prunus.train.contracted import expanded, through_kernels
from prunus.train.fit import fit

LAYERS = {
    "plain": nn.Conv2d(4, 6, 3, padding=1),
    "strided": nn.Conv2d(4, 6, 3, stride=2, padding=1, bias=False),
    "large": nn.Conv2d(4, 6, 5, padding=2, dilation=2),
    "grouped": nn.Conv2d(4, 6, 3, padding=(1, 0), groups=2),
    "depthwise": nn.Conv2d(4, 4, 3, padding=1, groups=4, padding_mode="reflect"),
    "transposed": nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1),
    "uneven padding": nn.Conv2d(4, 6, (4, 3), padding="same"),
    "sequence": nn.Conv1d(4, 6, 5, padding=2),
}
SIZES = {"sequence": (2, 4, 9)}
IMAGES = (2, 4, 9, 8)


def wide(layer, dtype=torch.float64):
    torch.manual_seed(0)
    norm = nn.BatchNorm1d(layer.out_channels) if isinstance(layer, nn.Conv1d) else nn.BatchNorm2d(layer.out_channels)
    model = nn.Sequential(copy.deepcopy(layer), norm, nn.ReLU(), nn.Dropout(0.2), nn.Flatten(), nn.LazyLinear(3))
    model(torch.randn(SIZES["sequence"] if isinstance(layer, nn.Conv1d) else IMAGES))
    return prunus.apply(prunus.expand(model.to(dtype), ["0", "5"], 3), model)


def stepped(model, images, context, steps=3):
    """Outputs and gradients of a few steps of training, the weights and buffers after them."""
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.05, momentum=0.9)
    model.train()
    found = []
    for number in range(steps):
        torch.manual_seed(number)  # of the dropout
        with context(model):
            outputs = model(images)
            optimizer.zero_grad()
            outputs.square().mean().backward()
        found += [outputs.detach(), *(p.grad.clone() for p in model.parameters() if p.grad is not None)]
        optimizer.step()
    return found + [tensor.clone() for tensor in model.state_dict().values()]


def assert_equal(model, images):
    one_by_one = stepped(copy.deepcopy(model), images, contextlib.nullcontext)
    through = stepped(model, images, through_kernels)
    assert len(one_by_one) == len(through)
    for found, wanted in zip(through, one_by_one, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-12)
    return all(torch.equal(a, b) for a, b in zip(through, one_by_one, strict=True))


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@pytest.mark.parametrize("name", LAYERS)
def test_outputs_gradients_and_weights_are_those_of_the_factors_one_by_one(name):
    assert not assert_equal(wide(LAYERS[name]), torch.randn(SIZES.get(name, IMAGES), dtype=torch.float64))


class Awkward(nn.Module):
    """Tied weights, a body that is computed again in the backward pass, buffers and numbers that forward replaces."""

    def __init__(self, reentrant):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(4, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 4, 5, padding=2))
        self.first, self.second = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)
        self.second.weight = self.first.weight
        self.register_buffer("mean", torch.zeros(4))
        self.reentrant, self.steps = reentrant, 0

    def forward(self, x):
        y = self.second(self.first(x))
        y = checkpoint(self.body, y, use_reentrant=self.reentrant)
        self.mean = 0.9 * self.mean + 0.1 * y.detach().mean((0, 2, 3))
        self.steps += 1
        return y


@pytest.mark.parametrize("reentrant", [False, True])
def test_what_a_network_does_with_itself_goes_on(reentrant):
    torch.manual_seed(0)
    model = Awkward(reentrant).double()
    model = prunus.apply(prunus.expand(model, "body.*", 3), model)
    assert not assert_equal(model, torch.randn(IMAGES, dtype=torch.float64, requires_grad=True))
    assert model.steps == 3 and bool(model.mean.any())


def double(module, args, output):
    return 2 * output


def hooked(model):
    model[0].factor1.register_forward_hook(double)


def normalised(model):
    parametrizations.weight_norm(model[0].factor1)


def filled(model):
    model[0].add_module("own", nn.Dropout2d(0.2))


@pytest.mark.parametrize("change", [hooked, normalised, filled])
def test_what_is_no_kernel_is_computed_as_it_stands(change):
    model = wide(LAYERS["plain"])
    change(model)
    assert assert_equal(model, torch.randn(IMAGES, dtype=torch.float64))


def test_a_relu_between_the_factors_stays():
    plain = nn.Sequential(nn.Conv2d(4, 6, 3)).double()
    model = prunus.apply(prunus.expand(plain, "0", 2, nonlinear=True), plain)
    assert assert_equal(model, torch.randn(IMAGES, dtype=torch.float64))


def test_hooks_on_the_layer_itself_still_see_it_and_frozen_factors_stay():
    model, seen = wide(LAYERS["plain"]), []
    model[0].register_forward_hook(lambda module, args, output: seen.append(output.shape))
    model[0].factor0.requires_grad_(False)
    assert not assert_equal(model, torch.randn(IMAGES, dtype=torch.float64))
    assert len(seen) == 6


def test_afterwards_the_factors_are_computed_one_by_one_again():
    model = wide(LAYERS["plain"])
    with contextlib.suppress(RuntimeError), through_kernels(model):
        assert all(layer.shortcut is not None for layer in expanded(model) if "conv" in str(layer).lower())
        model(torch.randn(2, 5, 9, 8, dtype=torch.float64))
    assert all(layer.shortcut is None for layer in expanded(model))
    assert not hasattr(prunus.apply(prunus.contract(model), model)[0], "shortcut")


def test_kernels_keep_their_precision_under_autocast():
    model = wide(LAYERS["plain"], torch.float32).eval()
    images = torch.randn(IMAGES)
    with torch.autocast("cpu", torch.bfloat16):
        expected = prunus.apply(prunus.contract(model), model)(images)
        with through_kernels(model):
            found = model(images)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found, expected, rtol=2e-2, atol=1e-3)


def test_training_an_expanded_network_ends_where_the_factors_one_by_one_end(tmp_path, monkeypatch):
    def trained(folder):
        model = tiny.build()
        model = prunus.apply(prunus.expand(model, "k>1", 2, keep_function=True), model)
        return fit(tiny.training(folder, epochs=2, optimizer=tiny.SGD), model, tiny.example()).model.state_dict()

    through = trained(tmp_path / "kernels")
    monkeypatch.setattr("prunus.train.step.through_kernels", contextlib.nullcontext)
    monkeypatch.setattr("prunus.train.evaluate.through_kernels", contextlib.nullcontext)
    one_by_one = trained(tmp_path / "factors")
    assert any(not torch.equal(through[name], one_by_one[name]) for name in one_by_one)  # another order of sums
    for name, tensor in one_by_one.items():
        torch.testing.assert_close(through[name], tensor, rtol=1e-3, atol=1e-4)
