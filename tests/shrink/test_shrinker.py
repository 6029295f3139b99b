"""`prunus.Shrinker` in a plain loop: the budget is met, and the network stays the same object."""

import copy
import itertools

import loops
import pytest
import torch
from torch import nn

import prunus
from prunus.errors import BudgetError, RecipeError


def test_two_lines_in_a_loop_meet_the_budget():
    model = loops.build()
    optimizer = loops.OPTIMIZERS["adamw"](model.parameters())
    wide = prunus.trace(model, loops.EXAMPLE).macs()
    records = loops.train(model, optimizer, loops.shrinker_of(model, optimizer))
    assert len(records) > 2
    assert all(later.macs_before == earlier.macs_after for earlier, later in itertools.pairwise(records))
    assert all(record.max_rel_diff <= record.tolerance for record in records)
    assert 0.35 * wide < prunus.trace(model, loops.EXAMPLE).macs() == records[-1].macs_after <= 0.4 * wide


@pytest.mark.parametrize("kind", ["SGD", "Adam", "AdamW", "NAdam", "RAdam", "Adamax", "Adadelta", "Adagrad", "ASGD"])
def test_optimizers_that_keep_state_of_a_parameters_shape_follow(kind):
    model = loops.build()
    optimizer = getattr(torch.optim, kind)(model.parameters(), lr=1e-3)
    shrinker = loops.shrinker_of(model, optimizer)
    assert loops.train(model, optimizer, shrinker)
    assert shrinker.groups.macs() <= 0.4 * prunus.trace(loops.build(), loops.EXAMPLE).macs()
    shapes = {parameter: parameter.shape for parameter in model.parameters()}
    for parameter, state in optimizer.state.items():
        held = [value.shape for value in state.values() if isinstance(value, torch.Tensor) and value.dim()]
        assert set(held) <= {shapes[parameter]}


def test_network_parameters_groups_and_hooks_stay_the_same_objects():
    model, seen = loops.build(), []
    optimizer = loops.OPTIMIZERS["sgd"](model.parameters())
    objects = [*model.modules(), *model.parameters(), *model.buffers(), *optimizer.param_groups]
    model.body[0].weight.register_hook(lambda gradient: seen.append(gradient.shape[0]))
    model.body[0].bias.register_post_accumulate_grad_hook(lambda p: seen.append(p.grad.shape[0]))
    loops.train(model, optimizer, loops.shrinker_of(model, optimizer))
    now = [*model.modules(), *model.parameters(), *model.buffers(), *optimizer.param_groups]
    assert [id(each) for each in now] == [id(each) for each in objects]
    assert model.body[0].out_channels == model.body[2].in_channels == seen[-1] < 24 == seen[0]


def test_the_narrow_network_is_what_its_plan_makes_of_the_wide_one(tmp_path):
    model = loops.build()
    optimizer = loops.OPTIMIZERS["adamw"](model.parameters())
    shrinker = loops.shrinker_of(model, optimizer)
    loops.train(model, optimizer, shrinker)
    prunus.save(tmp_path / "saved", model, shrinker.plan)
    loaded = prunus.load(tmp_path / "saved", loops.build)
    assert torch.equal(loaded.eval()(loops.EXAMPLE), model.eval()(loops.EXAMPLE))


@pytest.mark.parametrize("kind", ["AveragedModel", "deepcopy", "wrapper"])
def test_averages_follow(kind):
    model = loops.build()
    optimizer = loops.OPTIMIZERS["adamw"](model.parameters())
    average = torch.optim.swa_utils.AveragedModel(model) if kind == "AveragedModel" else copy.deepcopy(model)
    if kind == "wrapper":  # as timm's ModelEmaV3 keeps it
        wrapper = nn.Module()
        wrapper.module = average
        average = wrapper
    shrinker = loops.shrinker_of(model, optimizer)
    shrinker.follow(average)
    inner = average if kind == "deepcopy" else average.module
    kept = list(map(id, inner.parameters()))

    @torch.no_grad()
    def update(step):
        for own, other in zip(inner.state_dict().values(), model.state_dict().values(), strict=True):
            own.lerp_(other, 0.5) if own.is_floating_point() else own.copy_(other)

    loops.train(model, optimizer, shrinker, after=update)
    assert [p.shape for p in inner.parameters()] == [p.shape for p in model.parameters()]
    assert list(map(id, inner.parameters())) == kept
    assert inner.body[0].out_channels == model.body[0].out_channels < 24
    assert bool(inner.eval()(loops.EXAMPLE).isfinite().all())


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_compiled_network_sees_the_narrower_layers(when):
    model = loops.build()
    compiled = torch.compile(model, backend="aot_eager")
    optimizer = loops.OPTIMIZERS["sgd"](model.parameters())
    if when == "before":
        compiled(loops.EXAMPLE)
    shrinker = loops.shrinker_of(model, optimizer)
    assert loops.train(model, optimizer, shrinker, network=compiled)
    torch.testing.assert_close(compiled.eval()(loops.EXAMPLE), model.eval()(loops.EXAMPLE))
    alone = loops.build()
    other = loops.OPTIMIZERS["sgd"](alone.parameters())
    loops.train(alone, other, loops.shrinker_of(alone, other))
    assert [p.shape for p in alone.parameters()] == [p.shape for p in model.parameters()]


def test_several_budgets_are_passed_on_the_way():
    model = loops.build()
    optimizer = loops.OPTIMIZERS["adamw"](model.parameters())
    wide = prunus.trace(model, loops.EXAMPLE).macs()
    shares = (0.8, 0.6, 0.4)
    shrinker = loops.shrinker_of(model, optimizer, budget=[prunus.Budget(macs=share) for share in shares])
    costs = dict[int, int]()
    loops.train(
        model, optimizer, shrinker, after=lambda step: costs.setdefault(shrinker.num_passed, shrinker.groups.macs())
    )
    assert list(costs) == [0, 1, 2, 3]
    assert all(0.85 * share * wide < costs[number + 1] <= share * wide for number, share in enumerate(shares))


def test_shares_of_a_latency_on_the_way_need_the_network_that_they_are_shares_of():
    model = loops.build()
    optimizer = loops.OPTIMIZERS["adamw"](model.parameters())
    budgets = [prunus.Budget(latency=0.8), prunus.Budget(latency=0.5)]
    with pytest.raises(BudgetError, match="reference="):
        loops.shrinker_of(model, optimizer, budget=budgets, meter=lambda network: 1.0)
    with pytest.raises(RecipeError, match="2 budgets need a segment each"):
        loops.shrinker_of(model, optimizer, budget=[prunus.Budget(macs=0.8), prunus.Budget(macs=0.5)], steps=None)


def test_each_budget_on_the_way_is_measured_by_its_own_meter():
    model, wide, asked = loops.build(), loops.build(), []

    def meter(number, factor):
        def milliseconds(network):
            asked.append(number)
            return factor * prunus.trace(network, loops.EXAMPLE).macs() / 1e6

        return milliseconds

    optimizer = loops.OPTIMIZERS["adamw"](model.parameters())
    budgets = [prunus.Budget(latency=0.8), prunus.Budget(latency=0.5)]
    meters = [meter(0, 1.0), meter(1, 7.0)]
    shrinker = loops.shrinker_of(model, optimizer, budget=budgets, meter=meters, reference=wide)
    costs = dict[int, int]()
    loops.train(
        model, optimizer, shrinker, after=lambda step: costs.setdefault(shrinker.num_passed, shrinker.groups.macs())
    )
    full = prunus.trace(wide, loops.EXAMPLE).macs()
    assert list(costs) == [0, 1, 2] and 0.65 * full < costs[1] <= 0.8 * full and 0.4 * full < costs[2] <= 0.5 * full
    assert asked == sorted(asked) and set(asked) == {0, 1}
