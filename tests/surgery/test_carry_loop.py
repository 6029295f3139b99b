"""Around carry_: whatever else belongs to a training goes on, step by step, as if the network were still masked."""

import copy
import dataclasses
import functools

import nets
import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import prunus
from prunus.penalties.zeros import zero_

BEFORE, AFTER = 3, 5  # steps
TOLERANCE = {"rtol": 1e-12, "atol": 1e-12}


@functools.cache
def groups():
    case = nets.CASES["residual"]
    return prunus.trace(case.model(), case.inputs())


def chosen():
    """Every second group that can go."""
    result = torch.zeros(len(groups()), dtype=torch.bool)
    result[groups().exact.nonzero().flatten()[::2]] = True
    return result


def inputs(step):
    (example,) = nets.CASES["residual"].inputs()
    return torch.randn(example.shape, generator=torch.Generator().manual_seed(step), dtype=example.dtype)


@dataclasses.dataclass
class Loop:
    """A training of its own: network, optimizer, and whatever a test adds."""

    model: nn.Module
    optimizer: torch.optim.Optimizer

    @classmethod
    def start(cls, make=lambda p: torch.optim.AdamW(p, lr=0.01), model=None):
        model = nets.CASES["residual"].model() if model is None else model
        return cls(model, make(model.parameters()))

    def backward(self, step, network=None):
        loss = (((network or self.model)(inputs(step)) - 0.3) ** 2).mean()
        loss.backward()
        return loss.detach()

    def step(self, step):
        self.optimizer.zero_grad()
        loss = self.backward(step)
        self.optimizer.step()
        return loss

    def mask(self):
        """Hold the chosen groups at zero."""
        zero_(self.model, groups(), chosen())

    def shrink(self):
        """Cut what is zero and go on with the narrow network; return the plan."""
        plan = prunus.select(self.model, groups())
        small = prunus.apply(plan, self.model)
        prunus.carry_(plan, self.optimizer, self.model, small)
        self.model = small
        return plan


def assert_narrow_is_wide(plan, narrow, wide):
    cut = prunus.apply(plan, wide)
    for (path, expected), found in zip(cut.state_dict().items(), narrow.state_dict().values(), strict=True):
        torch.testing.assert_close(found, expected, **TOLERANCE, msg=path)


def both(start):
    """Two equal loops, one after the other: one is masked, the other is cut."""
    masked, cut = start(), start()
    for step in range(BEFORE):
        for loop in (masked, cut):
            loop.step(step)
    masked.mask()
    cut.mask()
    return masked, cut


SCHEDULERS = {
    "step": lambda o: lr_scheduler.StepLR(o, 2),
    "cosine_restarts": lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 3),
    "one_cycle": lambda o: lr_scheduler.OneCycleLR(o, 0.02, total_steps=BEFORE + AFTER),  # moves beta_1 too
    "sequential": lambda o: lr_scheduler.SequentialLR(
        o, [lr_scheduler.LinearLR(o, total_iters=2), lr_scheduler.ExponentialLR(o, 0.8)], [2]
    ),
}


@pytest.mark.filterwarnings("ignore:The epoch parameter:UserWarning")  # torch's own SequentialLR passes it
@pytest.mark.parametrize("schedule", SCHEDULERS.values(), ids=SCHEDULERS.keys())
def test_schedulers(schedule):
    loops = [Loop.start(), Loop.start()]
    schedulers = [schedule(loop.optimizer) for loop in loops]
    plan = None
    for step in range(BEFORE + AFTER):
        if step == BEFORE:
            loops[0].mask()
            loops[1].mask()
            plan = loops[1].shrink()
        for loop, scheduler in zip(loops, schedulers, strict=True):
            loop.step(step)
            scheduler.step()
        if plan is not None:
            loops[0].mask()
            assert loops[0].optimizer.param_groups[0]["lr"] == loops[1].optimizer.param_groups[0]["lr"]
            assert_narrow_is_wide(plan, loops[1].model, loops[0].model)


def test_a_plateau_scheduler():
    masked, cut = both(Loop.start)
    schedulers = [lr_scheduler.ReduceLROnPlateau(loop.optimizer, patience=0) for loop in (masked, cut)]
    plan = cut.shrink()
    for step in range(BEFORE, BEFORE + AFTER):
        for loop, scheduler in zip((masked, cut), schedulers, strict=True):
            scheduler.step(float(loop.step(step)) + step)  # ever worse
        masked.mask()
    assert cut.optimizer.param_groups[0]["lr"] == masked.optimizer.param_groups[0]["lr"] < 0.01
    assert_narrow_is_wide(plan, cut.model, masked.model)


def test_a_gradient_scaler_that_finds_infinities_and_grows():
    masked, cut = both(Loop.start)
    scalers = [torch.amp.GradScaler("cpu", init_scale=8.0, growth_interval=2) for _ in range(2)]
    plan, scales = None, []
    for step in range(BEFORE, BEFORE + AFTER):
        for loop, scaler in zip((masked, cut), scalers, strict=True):
            loop.optimizer.zero_grad()
            loss = ((loop.model(inputs(step)) - 0.3) ** 2).mean() * (float("inf") if step == BEFORE + 2 else 1.0)
            scaler.scale(loss).backward()
            scaler.step(loop.optimizer)
            scaler.update()
        masked.mask()
        if plan is None:
            cut.mask()
            plan = cut.shrink()
        scales.append(scalers[1].get_scale())
        assert scalers[0].get_scale() == scales[-1]
        assert_narrow_is_wide(plan, cut.model, masked.model)
    assert scales == [8.0, 16.0, 8.0, 8.0, 16.0]


AVERAGES = {
    "ema": lambda m: AveragedModel(m, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True),
    "swa": lambda m: AveragedModel(m),
}


@pytest.mark.parametrize("average", AVERAGES.values(), ids=AVERAGES.keys())
def test_averages_of_the_weights_are_cut_by_the_same_plan(average):
    masked, cut = both(Loop.start)
    averages = [average(loop.model) for loop in (masked, cut)]
    for step in range(BEFORE, BEFORE + 2):  # the masked channels live in the average only
        for loop, mean in zip((masked, cut), averages, strict=True):
            loop.step(step)
            mean.update_parameters(loop.model)
    masked.mask()
    cut.mask()
    plan = cut.shrink()
    averages[1].module = prunus.apply(plan, averages[1].module)
    for step in range(BEFORE + 2, BEFORE + AFTER):
        for loop, mean in zip((masked, cut), averages, strict=True):
            loop.step(step)
            loop.mask() if loop is masked else None
            mean.update_parameters(loop.model)
        assert_narrow_is_wide(plan, averages[1].module, averages[0].module)
    assert int(averages[0].n_averaged) == int(averages[1].n_averaged)


def test_gathered_and_scaled_gradients_are_carried():
    """Cut between the two backward passes of one step, the loss scaled."""
    masked, cut = both(Loop.start)
    scalers = [torch.amp.GradScaler("cpu", init_scale=4.0) for _ in range(2)]
    for loop, scaler in zip((masked, cut), scalers, strict=True):
        loop.optimizer.zero_grad()
        scaler.scale(((loop.model(inputs(10)) - 0.3) ** 2).mean()).backward()
    plan = cut.shrink()
    for loop, scaler in zip((masked, cut), scalers, strict=True):
        scaler.scale(((loop.model(inputs(11)) - 0.3) ** 2).mean()).backward()
        scaler.step(loop.optimizer)
        scaler.update()
    masked.mask()
    assert_narrow_is_wide(plan, cut.model, masked.model)


def test_compiled_it_is_compiled_once_more():
    masked, cut = both(Loop.start)
    compiled = []

    def backend(graph, examples):
        compiled.append(graph)
        return graph.forward

    torch.compiler.reset()
    network = torch.compile(cut.model, backend=backend)
    cut.backward(0, network)
    once = len(compiled)
    plan = cut.shrink()
    network = torch.compile(cut.model, backend=backend)
    for step in range(BEFORE, BEFORE + AFTER):
        masked.step(step)
        masked.mask()
        cut.optimizer.zero_grad()
        cut.backward(step, network)
        cut.optimizer.step()
        torch.testing.assert_close(dict(cut.model.named_parameters()), parameters(plan, masked.model), **TOLERANCE)
    assert once >= 1 and len(compiled) == 2 * once


def parameters(plan, model):
    """The parameters of what `plan` makes of `model`."""
    return dict(prunus.apply(plan, model).named_parameters())


FUSED = {
    "adamw_fused": lambda p: torch.optim.AdamW(p, lr=0.01, fused=True, amsgrad=True),
    "adamw_foreach": lambda p: torch.optim.AdamW(p, lr=0.01, foreach=True),
    "sgd_fused": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, nesterov=True, fused=True),
}


@pytest.mark.parametrize("make", FUSED.values(), ids=FUSED.keys())
def test_channels_last(make):
    """The optimizer's state must lie in memory as the weights do: a fused step reads both straight through."""

    def start():
        return Loop.start(make, copy.deepcopy(nets.CASES["residual"].model()).to(memory_format=torch.channels_last))

    masked, cut = both(start)
    plan = cut.shrink()
    for parameter in cut.model.parameters():
        for state in cut.optimizer.state[parameter].values():
            assert state.dim() == 0 or state.stride() == parameter.stride()
    for step in range(BEFORE, BEFORE + AFTER):
        expected, found = masked.step(step), cut.step(step)
        masked.mask()
        torch.testing.assert_close(found, expected, **TOLERANCE)
        assert_narrow_is_wide(plan, cut.model, masked.model)
