"""The law: removing channel groups whose producers are zero changes nothing, and costs what was predicted."""

import copy

import nets
import pytest
import torch

import prunus
from prunus.penalties.zeros import zero_
from prunus.surgery.removal import removal, spare_layers
from prunus.verify import difference

TOLERANCES = {torch.float64: 1e-12, torch.float32: 1e-5}
EXACT = [name for name, case in nets.CASES.items() if case.exact]


def zeroed_half(case, dtype, seed):
    """Return the network with half of its exactly removable groups zero, and which they are."""
    model, inputs = case.model(dtype, seed), case.inputs(dtype, seed)
    groups = prunus.trace(model, inputs)
    chosen = groups.exact & (torch.rand(len(groups), generator=torch.Generator().manual_seed(seed)) < 0.5)
    chosen = spare_layers(groups, chosen)
    if not chosen.any():
        chosen = spare_layers(groups, groups.exact.clone())
    zero_(model, groups, chosen)
    return model, inputs, groups, chosen


def compare(first, second, inputs, tolerance):
    with torch.no_grad():
        pairs = zip(nets.outputs(first(*inputs)), nets.outputs(second(*inputs)), strict=True)
        for before, after in pairs:
            assert before.shape == after.shape
            assert (before - after).abs().max() <= tolerance * before.abs().max()


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("name", EXACT)
def test_removing_zero_groups_changes_nothing(name, dtype):
    case = nets.CASES[name]
    model, inputs, groups, chosen = zeroed_half(case, dtype, seed=1)
    small = prunus.apply(prunus.select(model, groups), model)
    compare(model.eval(), small.eval(), inputs, TOLERANCES[dtype])
    if not case.random:
        compare(model.train(), small.train(), inputs, TOLERANCES[dtype])
    alive = ~chosen
    assert sum(p.numel() for p in small.parameters()) == groups.params(alive) < case.params
    again = prunus.trace(small, inputs)
    assert (again.params(), again.macs()) == (groups.params(alive), groups.macs(alive))


@pytest.mark.parametrize("name", EXACT)
def test_gradients_of_what_stays_are_the_same(name):
    case = nets.CASES[name]
    model, inputs, groups, _ = zeroed_half(case, torch.float64, seed=2)
    plan = prunus.select(model, groups)
    small = prunus.apply(plan, model)
    for network in (model.eval(), small.eval()):
        sum(tensor.square().sum() for tensor in nets.outputs(network(*inputs))).backward()
    largest = max(float(p.grad.abs().max()) for p in model.parameters() if p.grad is not None)
    for (path, wide), narrow in zip(model.named_parameters(), small.parameters(), strict=True):
        if wide.grad is not None:
            carried = plan.edits[0].carry(path, wide.grad)
            torch.testing.assert_close(carried, narrow.grad, rtol=1e-9, atol=1e-12 * largest)


@pytest.mark.parametrize("name", nets.CASES)
def test_groups_costs_and_sizes_are_those_worked_out_by_hand(name):
    case = nets.CASES[name]
    groups = prunus.trace(case.model(), case.inputs())
    approximate = ~groups.exact & ~groups.refused
    assert int(groups.exact.sum()) == case.exact
    assert int(approximate.sum()) == case.approximate
    assert groups.params() == case.params
    assert groups.macs() == case.macs


@pytest.mark.parametrize("name", EXACT)
def test_every_group_is_needed_whole(name):
    """A group is no larger than need be: with one producer left as it was, it stays wherever its removal shows. (Where
    the scale and shift of a norm switch it off, nothing shows.)"""
    case = nets.CASES[name]
    model, inputs = case.model(), case.inputs()
    groups = prunus.trace(model, inputs)
    group = int(groups.exact.nonzero()[0])
    only = torch.zeros(len(groups), dtype=torch.bool)
    only[group] = True
    zero_(model, groups, only)
    assert prunus.select(model, groups).edits
    producer = next(member for member in groups.members(group) if member.role == "producer")
    touched = copy.deepcopy(model)
    with torch.no_grad():
        dict(touched.named_parameters())[producer.path].select(producer.dim, producer.index).fill_(1.0)
    forced = prunus.apply(removal(groups, only), touched)
    if difference(touched, forced, inputs)[1] > TOLERANCES[torch.float32]:
        assert not prunus.select(touched, groups).edits
