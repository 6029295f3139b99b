"""An expanded network is trained through what it contracts to: the same outputs, gradients and weights, for less."""

import copy

import pytest
import tiny
import torch
from torch import nn

import prunus
from prunus.surgery import Plan
from prunus.train.contracted import Contracted, computed
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


def expanded(layer, dtype=torch.float64):
    torch.manual_seed(0)
    norm = nn.BatchNorm1d(layer.out_channels) if isinstance(layer, nn.Conv1d) else nn.BatchNorm2d(layer.out_channels)
    model = nn.Sequential(copy.deepcopy(layer), norm, nn.ReLU(), nn.Dropout(0.2), nn.Flatten(), nn.LazyLinear(3))
    model(torch.randn(SIZES["sequence"] if isinstance(layer, nn.Conv1d) else (2, 4, 9, 8)))
    return prunus.apply(prunus.expand(model.to(dtype), ["0", "5"], 3), model)


def stepped(network, model, images, steps=3):
    """Weights, buffers, outputs and gradients of a few steps of training."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, nesterov=True)
    network.train()
    found = []
    for number in range(steps):
        torch.manual_seed(number)  # of the dropout
        outputs = network(images)
        optimizer.zero_grad()
        outputs.square().mean().backward()
        found += [outputs.detach(), *(p.grad.clone() for p in model.parameters())]
        optimizer.step()
    return found + [tensor.clone() for tensor in model.state_dict().values()]


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@pytest.mark.parametrize("name", LAYERS)
def test_outputs_gradients_and_weights_are_those_of_the_factors_one_by_one(name):
    wide = expanded(LAYERS[name])
    images = torch.randn(SIZES.get(name, (2, 4, 9, 8)), dtype=torch.float64)
    alone = stepped(wide, wide, images)
    again = expanded(LAYERS[name])
    network = computed(again)
    assert isinstance(network, Contracted)
    for one, other in zip(alone, stepped(network, again, images), strict=True):
        torch.testing.assert_close(other, one, rtol=1e-10, atol=1e-12)


def test_only_the_networks_own_parameters_are_trained_and_both_views_follow_the_mode():
    model = expanded(LAYERS["plain"])
    network = computed(model)
    assert [id(p) for p in network.parameters()] == [id(p) for p in model.parameters()]
    before = model[1].running_mean.clone()
    network.eval()(torch.randn(2, 4, 9, 8, dtype=torch.float64))
    assert torch.equal(model[1].running_mean, before) and not model.training
    network.train()(torch.randn(2, 4, 9, 8, dtype=torch.float64))
    assert not torch.equal(model[1].running_mean, before) and model.training


def test_kernels_keep_their_precision_under_autocast():
    network = computed(expanded(LAYERS["plain"], torch.float32))
    with torch.autocast("cpu", torch.bfloat16):
        assert {kernel.dtype for kernel in network.kernels().values()} == {torch.float32}
        assert network(torch.randn(2, 4, 9, 8)).dtype == torch.bfloat16


def test_what_has_no_kernel_is_computed_as_it_stands():
    plain = nn.Sequential(nn.Conv2d(4, 6, 3), nn.Flatten(), nn.Linear(24, 3))
    assert computed(plain) is plain
    for plan in (prunus.expand(plain, "0", 2, nonlinear=True), prunus.expand(plain, "2", 2)):
        model = prunus.apply(plan, plain)
        assert computed(model) is model


def test_training_an_expanded_network_ends_where_the_factors_one_by_one_end(tmp_path, monkeypatch):
    def trained(folder):
        model = tiny.build()
        model = prunus.apply(prunus.expand(model, "k>1", 2, keep_function=True), model)
        return fit(tiny.training(folder, epochs=2, optimizer=tiny.SGD), model, tiny.example()).model.state_dict()

    through_kernels = trained(tmp_path / "kernels")
    monkeypatch.setattr("prunus.train.state.computed", lambda model: model)
    one_by_one = trained(tmp_path / "factors")
    assert any(not torch.equal(through_kernels[name], one_by_one[name]) for name in one_by_one)  # another order of sums
    for name, tensor in one_by_one.items():
        torch.testing.assert_close(through_kernels[name], tensor, rtol=1e-3, atol=1e-4)


def test_a_plan_that_contracts_nothing_changes_nothing():
    model = nn.Sequential(nn.Conv2d(4, 6, 3))
    image = torch.randn(1, 4, 5, 5)
    assert torch.equal(Contracted(model, Plan())(image), model(image))
