"""`prunus.Shrinker` in loops of many kinds."""

import copy
import functools
import io

import loops
import pytest
import torch
from torch import nn

import prunus
from prunus.errors import BudgetError


def macs(model):
    return prunus.trace(model, loops.EXAMPLE).macs()


WIDE = macs(loops.build())


def weights(model):
    return {path: tensor.clone() for path, tensor in model.state_dict().items()}


def plain(**settings):
    """Train as every test here does, in the plainest of loops; return the network and its plan."""
    model = loops.build()
    optimizer = loops.OPTIMIZERS["sgd"](model.parameters())
    shrinker = loops.shrinker_of(model, optimizer, **settings)
    loops.train(model, optimizer, shrinker)
    return model, shrinker.plan


@pytest.mark.parametrize("often", [False, True], ids=["once a step", "once a micro-batch"])
def test_gradients_may_be_accumulated(often):
    model = loops.build()
    model.stem[1] = nn.Identity()  # BatchNorm would see each half alone
    optimizer = loops.OPTIMIZERS["sgd"](model.parameters())
    shrinker, cuts = loops.shrinker_of(model, optimizer), 0
    for step in range(loops.STEPS):
        images, labels = loops.batch(step)
        optimizer.zero_grad()
        for half in (slice(0, 4), slice(4, 8)):
            (nn.functional.cross_entropy(model(images[half]), labels[half]) / 2).backward()
            if often and half.start == 0:
                assert shrinker.step() is None
        optimizer.step()
        cuts += shrinker.step() is not None
    assert cuts > 2 and macs(model) <= 0.4 * macs(with_identity())
    assert shrinker.clock.period == 20 + loops.STEPS % 20


def with_identity():
    model = loops.build()
    model.stem[1] = nn.Identity()
    return model


@pytest.mark.parametrize("fused", [False, True])
def test_a_step_that_a_grad_scaler_skips_is_none(fused):
    model = loops.build()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, fused=fused)
    scaler = torch.amp.GradScaler("cpu", init_scale=256.0)
    shrinker = loops.shrinker_of(model, optimizer)
    skipped = {0, 6, 11}
    for step in range(loops.STEPS + len(skipped)):
        images, labels = loops.batch(step)
        loss = nn.functional.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        if step in skipped:
            model.head.bias.grad[0] = torch.inf
        before = weights(model), shrinker.state_dict()
        scaler.step(optimizer)
        scaler.update()
        record = shrinker.step()
        if step in skipped:
            assert record is None
            loops.assert_same((weights(model), shrinker.state_dict()), before)
    assert shrinker.clock.period == 24
    assert macs(model) <= 0.4 * WIDE
    assert bool(shrinker.pressure.importance.isfinite().all())


def test_the_scale_of_gradients_is_not_importance():
    """A fused optimizer gets them as they are."""
    found = []
    for scaled in (False, True):
        model = loops.build()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.0, fused=True)
        scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, enabled=scaled)
        shrinker = loops.shrinker_of(model, optimizer)
        images, labels = loops.batch(0)
        scaler.scale(nn.functional.cross_entropy(model(images), labels)).backward()
        scaler.step(optimizer)
        found.append(shrinker.pressure.importance)
    torch.testing.assert_close(*found)


def test_a_closure_that_computes_the_gradients_is_observed():
    model = loops.build()
    optimizer = loops.OPTIMIZERS["sgd"](model.parameters())
    shrinker = loops.shrinker_of(model, optimizer)
    for step in range(loops.STEPS):
        images, labels = loops.batch(step)

        def closure(images=images, labels=labels):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(images), labels)
            loss.backward()
            return loss

        assert optimizer.step(closure) if step % 2 else optimizer.step(closure=closure)
        shrinker.step()
    expected, plan = plain()
    assert shrinker.plan == plan
    loops.assert_same(weights(model), weights(expected))


OPTIMIZERS = {
    "foreach": lambda p: torch.optim.AdamW(p, lr=3e-3, foreach=True),
    "fused": lambda p: torch.optim.AdamW(p, lr=3e-3, fused=True),
    "fused sgd": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, fused=True),
    "maximize": lambda p: torch.optim.SGD(p, lr=0.0, maximize=True),
    "decoupled": lambda p: torch.optim.Adam(p, lr=3e-3, weight_decay=0.1, decoupled_weight_decay=True),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers_in_all_their_forms(name):
    model = loops.build()
    optimizer = OPTIMIZERS[name](model.parameters())
    assert loops.train(model, optimizer, loops.shrinker_of(model, optimizer))
    assert macs(model) <= 0.4 * WIDE


def test_several_groups_of_named_parameters_keep_their_order_and_settings():
    model = loops.build()
    named = list(model.named_parameters())
    groups = [
        {"params": [(n, p) for n, p in named if p.dim() > 1], "weight_decay": 0.1, "lr": 0.01},
        {"params": [(n, p) for n, p in named if p.dim() == 1], "weight_decay": 0.0, "lr": 0.02},
    ]
    optimizer = torch.optim.SGD(groups, momentum=0.9)
    before = [{**group, "params": list(map(id, group["params"]))} for group in optimizer.param_groups]
    loops.train(model, optimizer, loops.shrinker_of(model, optimizer))
    after = [{**group, "params": list(map(id, group["params"]))} for group in optimizer.param_groups]
    assert after == before
    assert macs(model) <= 0.4 * WIDE


def test_layers_that_nobody_trains_keep_their_channels():
    torch.manual_seed(0)
    layers = (nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.ReLU(), nn.Flatten(), nn.Linear(256, 4))
    model = nn.Sequential(*layers)
    model[0].requires_grad_(False)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.05)
    frozen = weights(model[0])
    shrinker = loops.shrinker_of(model, optimizer, budget=prunus.Budget(macs=0.6))
    assert loops.train(model, optimizer, shrinker)
    loops.assert_same(weights(model[0]), frozen)
    assert model[2].out_channels < 16 == model[2].in_channels


def test_memory_formats_survive():
    model = loops.build().to(memory_format=torch.channels_last)
    optimizer = loops.OPTIMIZERS["adamw"](model.parameters())
    assert loops.train(model, optimizer, loops.shrinker_of(model, optimizer))
    weight = model.body[0].weight
    assert weight.is_contiguous(memory_format=torch.channels_last) and not weight.is_contiguous()
    state = optimizer.state[weight]["exp_avg"]
    assert state.is_contiguous(memory_format=torch.channels_last)


class Tied(nn.Module):
    """Two layers with one weight."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 12, 1)
        self.first, self.second = nn.Conv2d(12, 12, 1, bias=False), nn.Conv2d(12, 12, 1, bias=False)
        self.second.weight = self.first.weight
        self.wide, self.head = nn.Conv2d(12, 24, 1), nn.Linear(24, 4)

    def forward(self, images):
        found = torch.relu(self.stem(images))
        found = found + torch.relu(self.first(found))
        found = found + torch.relu(self.second(found))
        return self.head(torch.relu(self.wide(found)).mean((2, 3)))


def test_tied_weights_stay_tied():
    model = loops.build(Tied)
    optimizer = loops.OPTIMIZERS["adamw"](model.parameters())
    assert loops.train(model, optimizer, loops.shrinker_of(model, optimizer))
    assert model.first.weight is model.second.weight
    assert model.first.in_channels == model.second.in_channels == model.first.weight.shape[1]


class Larger(nn.Module):
    """A network around the one that shrinks, with parameters that its trace does not reach."""

    def __init__(self):
        super().__init__()
        self.backbone = loops.Net()
        self.backbone.unused = nn.Parameter(torch.ones(3))
        self.loss_scale = nn.Parameter(torch.ones(()))
        self.head = nn.Linear(4, 4)

    def forward(self, images):
        return self.head(self.backbone(images)) * self.loss_scale


def test_a_part_of_a_larger_network_shrinks_and_the_rest_stays():
    model = loops.build(Larger)
    wide = macs(model.backbone)
    optimizer = loops.OPTIMIZERS["adamw"](model.parameters())
    shrinker = loops.shrinker_of(model.backbone, optimizer)
    assert loops.train(model, optimizer, shrinker)
    assert macs(model.backbone) <= 0.4 * wide
    assert model.head.weight.shape == (4, 4) and model.backbone.unused.shape == (3,)
    held = [id(parameter) for group in optimizer.param_groups for parameter in group["params"]]
    assert held == [id(parameter) for parameter in model.parameters()]
    assert optimizer.state[model.head.weight]["step"] == loops.STEPS


def test_the_length_of_a_training_may_be_told_in_epochs_of_any_length():
    model = loops.build()
    optimizer = loops.OPTIMIZERS["sgd"](model.parameters())
    shrinker, cuts = loops.shrinker_of(model, optimizer, steps=None, epochs=8), []
    for epoch, length in enumerate((3, 3, 2, 4, 3, 1, 3, 3)):  # pressed from the third on
        assert not loops.train(model, optimizer, shrinker, range(8 * epoch, 8 * epoch + length))
        record = shrinker.end_epoch()
        if record is not None:
            assert record.max_rel_diff <= record.tolerance
            cuts.append(record.epoch)
    assert cuts == [3, 4, 5]
    assert macs(model) <= 0.4 * WIDE


def test_finish_reaches_the_budget_where_the_length_is_not_known():
    model = loops.build()
    optimizer = loops.OPTIMIZERS["sgd"](model.parameters())
    average = copy.deepcopy(model)
    shrinker = loops.shrinker_of(model, optimizer, steps=None)
    shrinker.follow(average)
    assert not loops.train(model, optimizer, shrinker) and macs(model) == WIDE
    record = shrinker.finish()
    assert record.macs_after == macs(model) == macs(average) <= 0.4 * WIDE
    loops.train(model, optimizer, shrinker)  # goes on, as narrow
    assert shrinker.finish() is None


def test_finish_in_the_midst_of_a_schedule_reaches_the_budget_and_at_its_end_does_nothing():
    for steps, expected in ((9, True), (loops.STEPS, False)):
        model = loops.build()
        optimizer = loops.OPTIMIZERS["sgd"](model.parameters())
        shrinker = loops.shrinker_of(model, optimizer)
        loops.train(model, optimizer, shrinker, range(steps))
        assert (shrinker.finish() is not None) == expected
        assert macs(model) <= 0.4 * WIDE


def test_keyword_arguments_of_an_example():
    class Named(loops.Net):
        def forward(self, *, images):
            return super().forward(images)

    model = loops.build(Named)
    optimizer = loops.OPTIMIZERS["sgd"](model.parameters())
    shrinker = prunus.Shrinker(
        model, optimizer, (), kwargs={"images": loops.EXAMPLE}, budget=prunus.Budget(macs=0.4), steps=loops.STEPS
    )
    assert loops.train(model, optimizer, shrinker, network=lambda images: model(images=images))
    assert shrinker.groups.macs() <= 0.4 * WIDE


def test_network_and_optimizer_can_be_copied_and_pickled_in_the_midst(tmp_path):
    """As Ultralytics and others do with theirs."""
    model = loops.build()
    optimizer = loops.OPTIMIZERS["adamw"](model.parameters())
    shrinker = loops.shrinker_of(model, optimizer)
    loops.train(model, optimizer, shrinker, range(10))
    copies = copy.deepcopy(model), copy.deepcopy(optimizer)
    file = io.BytesIO()
    torch.save({"model": model, "optimizer": optimizer}, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=False)
    loops.assert_same(weights(loaded["model"]), weights(copies[0]))
    loops.train(model, optimizer, shrinker, range(10, loops.STEPS))
    assert macs(model) <= 0.4 * WIDE < macs(copies[0])
    assert not loaded["optimizer"]._optimizer_step_pre_hooks


def test_a_budget_in_milliseconds_is_met_and_told():
    meter, said = lambda network: sum(p.numel() for p in network.parameters()) / 1000, []
    settings = {"budget": prunus.Budget(latency=0.5), "meter": meter, "told": said.append}
    model, _ = plain(**settings)
    assert 0.35 < meter(model) / meter(loops.build()) <= 0.5
    assert len(said) == 2 and all("ms are allowed" in text for text in said)


def test_without_a_meter_milliseconds_are_those_of_onnx_runtime():
    model, said = loops.build(lambda: loops.Net(width=48)), []
    optimizer = loops.OPTIMIZERS["sgd"](model.parameters())
    shrinker = loops.shrinker_of(model, optimizer, budget=prunus.Budget(latency=0.7), told=said.append)
    loops.train(model, optimizer, shrinker)
    assert len(shrinker.plan) > 0 and "ms are allowed" in said[0]


def test_an_importance_of_ones_own_says_what_goes():
    def first_channels(model, groups):
        """The first channels of each layer are the least important."""
        return torch.arange(len(groups), dtype=torch.float64)

    _, plan = plain(importance=first_channels)
    removed = next(cut.remove for cut in plan.edits[0].cuts if cut.path.endswith("0.weight") and cut.dim == 0)
    assert removed == tuple(range(len(removed)))
    with pytest.raises(BudgetError, match="importance has shape"):
        plain(importance=lambda model, groups: torch.ones(3))


def test_wrappers_of_trainers_are_looked_through():
    accelerate = pytest.importorskip("accelerate")
    model = loops.build()
    wrapped = accelerate.Accelerator(cpu=True).prepare_optimizer(loops.OPTIMIZERS["sgd"](model.parameters()))
    assert type(wrapped).__name__ == "AcceleratedOptimizer"
    shrinker = loops.shrinker_of(model, wrapped)
    loops.train(model, wrapped, shrinker)
    assert shrinker.plan == plain()[1]


def test_bfloat16_and_autocast():
    model = loops.build()
    optimizer = loops.OPTIMIZERS["adamw"](model.parameters())
    shrinker = loops.shrinker_of(model, optimizer)
    network = torch.autocast("cpu", torch.bfloat16)(functools.partial(model))
    assert loops.train(model, optimizer, shrinker, network=network)
    assert macs(model) <= 0.4 * WIDE
