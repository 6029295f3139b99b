import copy
import dataclasses
import itertools
import math
import os
import signal

import pytest
import tiny
import torch

import prunus
from prunus.budget import Budget
from prunus.budget.controller import Controller, Goal
from prunus.errors import BudgetError, InterruptedTrainingError, RecipeError, TrainingError
from prunus.models.decn import SkippedPair
from prunus.penalties import BoundPenalty, Penalty
from prunus.penalties.zeros import zero_
from prunus.records import EpochRecord, ShrinkRecord, read
from prunus.shrink.goal import goal_of
from prunus.surgery import BypassBlock
from prunus.train import checkpoint
from prunus.train.fit import fit
from prunus.train.settings import OptimizerSettings


def fitted(folder, controller=tiny.SHRINK, **changes):
    return fit(tiny.training(folder, **changes), tiny.build(), tiny.example(), controller)


def records(folder, kind):
    return [record for record in read(folder) if isinstance(record, kind)]


@pytest.mark.parametrize(
    "budget",
    [
        Budget(macs=0.4),
        Budget(params=0.3),
        Budget(macs=0.5, params=0.3),
        Budget(macs=200_000),
    ],
    ids=["macs", "params", "both", "absolute"],
)
def test_the_budget_is_met_and_not_passed_by_far(tmp_path, budget):
    wide = prunus.trace(tiny.build(), tiny.example())
    bounds = budget.absolute(wide)
    result = fitted(tmp_path, Controller(budget=budget, begin=0.25, end=0.75))
    narrow = prunus.trace(result.model, tiny.example())
    costs = {"macs": narrow.macs(), "params": narrow.params()}
    shares = {kind: costs[kind] / bound for kind, bound in bounds.items()}
    assert max(shares.values()) <= 1
    assert max(shares.values()) > 0.9  # one channel more of this 16-channel network would be above the bound
    last = records(tmp_path, EpochRecord)[-1]
    assert (last.macs, last.params) == (narrow.macs(), narrow.params())
    assert last.pressed == 0


class Shaking(Penalty):
    """A penalty of one's own that moves every weight after an epoch, zero or not."""

    def bind(self, model, groups):
        return BoundShaking(model)


class BoundShaking(BoundPenalty):
    when = "epoch"

    def __init__(self, model):
        self.model = model

    def value(self):
        return torch.zeros(())

    @torch.no_grad()
    def prox_(self, step_size, optimizer=None):
        for parameter in self.model.parameters():
            parameter.add_(1e-6)


PENALTIES = {
    "nuclear": prunus.NuclearNorm(strength="auto", when="epoch"),
    "orthogonal": prunus.Orthogonality(strength=0.1, when="epoch"),
    "one's own": Shaking(),
}


@pytest.mark.parametrize("penalty", PENALTIES.values(), ids=PENALTIES)
def test_the_budget_is_met_beside_other_penalties(tmp_path, penalty):
    bound = Budget(macs=0.4).absolute(prunus.trace(tiny.build(), tiny.example()))["macs"]
    training = dataclasses.replace(tiny.training(tmp_path), penalty=penalty)
    narrow = fit(training, tiny.build(), tiny.example(), tiny.SHRINK).model
    assert 0.9 * bound < prunus.trace(narrow, tiny.example()).macs() <= bound


def test_channels_are_exactly_zero_before_each_cut_and_the_cost_falls_in_several(tmp_path):
    fitted(tmp_path, epochs=6)
    cuts = records(tmp_path, ShrinkRecord)
    assert len(cuts) >= 2
    assert all(cut.max_rel_diff <= 1e-5 for cut in cuts)
    assert all(cut.macs_after < cut.macs_before for cut in cuts)
    assert all(later.macs_before == earlier.macs_after for earlier, later in itertools.pairwise(cuts))


def test_segments_of_two_epochs_cut_every_second_epoch(tmp_path):
    fitted(tmp_path, Controller(budget=Budget(macs=0.4), begin=0.0, end=0.67, every=2), epochs=6)
    assert [cut.epoch for cut in records(tmp_path, ShrinkRecord)] == [2, 4]


def test_widths_stay_multiples(tmp_path):
    result = fitted(tmp_path, Controller(budget=Budget(macs=0.5, multiple_of=4), begin=0.25, end=0.5), epochs=3)
    widths = prunus.trace(result.model, tiny.example()).widths()
    made = {name: width for name, width in widths.items() if not name.startswith("decoder")}
    assert made
    assert all(width % 4 == 0 for width in made.values())
    assert sum(made.values()) < sum(prunus.trace(tiny.build(), tiny.example()).widths().values())


@pytest.mark.parametrize("penalty", [None, prunus.GroupLasso(strength=0.1)], ids=["budget", "penalty too"])
def test_layers_that_a_budget_keeps_stay_as_wide_as_they_are(tmp_path, penalty):
    """Channels that are zero stay too: one begins so, and the penalty may make more."""
    model = tiny.build()
    groups = prunus.trace(model, tiny.example())
    chosen = torch.zeros(len(groups), dtype=torch.bool)
    chosen[(groups.layers == groups.layer_names.index("encoder.0")).nonzero().flatten()[0]] = True
    zero_(model, groups, chosen)
    controller = Controller(budget=Budget(macs=0.6, keep=("encoder.0",)), begin=0.25, end=0.75)
    training = dataclasses.replace(tiny.training(tmp_path), penalty=penalty)
    small = fit(training, model, tiny.example(), controller).model
    widths = {path: len(module.weight) for path, module in small.named_modules() if hasattr(module, "weight")}
    assert widths["encoder.0"] == widths["encoder.3.body.3"] == 16 and widths["encoder.3.body.0"] < 32
    with pytest.raises(RecipeError, match=r"keep: 'encodr' matches no layer .*similar: encoder"):
        fitted(tmp_path / "other", Controller(budget=Budget(macs=0.6, keep=("encodr",))))


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_every_optimizer_reaches_the_budget_and_the_plan_replays(tmp_path, name):
    optimizer = OptimizerSettings(name=name, learning_rate=5e-3)
    result = fitted(tmp_path, epochs=3, optimizer=optimizer)
    replayed = prunus.apply(result.plan, tiny.build())
    shapes = {path: tensor.shape for path, tensor in result.model.state_dict().items()}
    assert {path: tensor.shape for path, tensor in replayed.state_dict().items()} == shapes
    prunus.save(tmp_path / "saved", result.model, result.plan)
    loaded = prunus.load(tmp_path / "saved", tiny.build)
    with torch.no_grad():
        assert torch.equal(loaded.eval()(tiny.example()), result.model.eval()(tiny.example()))


def test_training_learns_and_a_wide_one_keeps_its_size(tmp_path):
    result = fitted(tmp_path, None, name="wide", epochs=6, optimizer=OptimizerSettings(learning_rate=2e-2))
    losses = [record.loss for record in records(tmp_path, EpochRecord)]
    assert losses[-1] < 0.85 * losses[0]
    assert len(result.plan) == 0
    assert not records(tmp_path, ShrinkRecord)
    macs = prunus.trace(tiny.build(), tiny.example()).macs()
    assert {record.macs for record in records(tmp_path, EpochRecord)} == {macs}


def test_the_average_is_what_is_returned_and_it_shrinks_along(tmp_path):
    plain = fitted(tmp_path / "plain")
    averaged = fitted(tmp_path / "ema", ema_decay=0.9)
    shapes = {path: tensor.shape for path, tensor in averaged.model.state_dict().items()}
    assert {path: tensor.shape for path, tensor in prunus.apply(averaged.plan, tiny.build()).state_dict().items()} == (
        shapes
    )
    assert averaged.plan == plain.plan  # averaging does not change the training
    weight = "encoder.3.body.0.weight"
    assert not torch.equal(averaged.model.state_dict()[weight], plain.model.state_dict()[weight])


def test_the_average_is_the_exponential_one(tmp_path):
    decay, seen = 0.75, []
    model = tiny.build()

    def note(*ignored):
        seen.append(model.state_dict()["decoder.bias"].clone())

    training = tiny.training(tmp_path, name="wide", ema_decay=decay, epochs=2)
    training = type(training)(**{**vars(training), "ticked": note})
    result = fit(training, model, tiny.example())
    expected = seen[0]
    for value in seen[1:]:
        expected = decay * expected + (1 - decay) * value
    torch.testing.assert_close(result.model.state_dict()["decoder.bias"], expected)


def test_pressed_from_the_first_epoch_every_layer_still_keeps_its_share(tmp_path):
    controller = Controller(budget=Budget(macs=0.5), begin=0.0, end=0.5)
    result = fitted(tmp_path, controller, epochs=2)
    before, after = (prunus.trace(m, tiny.example()).widths() for m in (tiny.build(), result.model))
    assert all(after[layer] >= 0.2 * width for layer, width in before.items())


def test_a_budget_out_of_reach_is_refused_before_training(tmp_path):
    ticks = []
    training = tiny.training(tmp_path)
    training = type(training)(**{**vars(training), "ticked": lambda *seen: ticks.append(seen)})
    with pytest.raises(BudgetError, match=r"cannot be met: the smallest reachable is macs [\d,]+"):
        fit(training, tiny.build(), tiny.example(), Controller(budget=Budget(macs=0.001)))
    assert not ticks
    assert checkpoint.latest(tmp_path / "checkpoints" / "narrow") is None


class Failing:
    """The task, whose loss is no number from its batch `at` on."""

    def __init__(self, task, at):
        self.task, self.at, self.seen = task, at, 0
        self.main_metric = task.main_metric

    def loss(self, output, target):
        self.seen += 1
        return self.task.loss(output, target) * (math.nan if self.seen >= self.at else 1)

    def training_loss(self, inputs, output, target):
        return self.loss(output, target)

    def metrics(self):
        return self.task.metrics()


def test_a_loss_that_is_no_number_stops_and_keeps_the_last_checkpoint(tmp_path):
    training = tiny.training(tmp_path)
    failing = type(training)(**{**vars(training), "task": Failing(training.task, at=7)})  # 4 steps an epoch
    with pytest.raises(TrainingError, match=r"the loss is nan in epoch 2, step 3 \(narrow\)"):
        fit(failing, tiny.build(), tiny.example(), tiny.SHRINK)
    found = checkpoint.latest(tmp_path / "checkpoints" / "narrow")
    assert found.state["progress"]["epoch"] == 1
    assert all(tensor.isfinite().all() for tensor in found.tensors.values() if tensor.is_floating_point())
    again = fit(training, tiny.build(), tiny.example(), tiny.SHRINK)  # the cause removed, it goes on from there
    assert [record.epoch for record in records(tmp_path, EpochRecord)] == [1, 2, 3, 4]
    assert all(parameter.isfinite().all() for parameter in again.model.parameters())


def poisoned(training, model, at):
    """Let the gradient of one weight be no number from step `at` on; the loss stays a number."""
    calls = itertools.count(1)
    model.decoder.weight.register_hook(lambda gradient: gradient * (math.nan if next(calls) >= at else 1))
    return fit(training, model, tiny.example())


def test_a_gradient_that_is_no_number_stops_before_it_reaches_the_weights(tmp_path):
    training, model = tiny.training(tmp_path, name="wide"), tiny.build()
    with pytest.raises(TrainingError, match=r"the gradient of decoder\.weight is not finite.* in epoch 2, step 2"):
        poisoned(training, model, at=6)
    assert all(parameter.isfinite().all() for parameter in model.parameters())
    assert checkpoint.latest(training.checkpoints).state["progress"]["epoch"] == 1
    fit(training, tiny.build(), tiny.example())  # the cause removed, it goes on
    assert [record.epoch for record in records(tmp_path, EpochRecord)] == [1, 2, 3, 4]


def test_the_best_on_the_validation_split_is_kept(tmp_path):
    training = tiny.training(tmp_path, name="wide", epochs=6, keep_checkpoints=1)
    fit(training, tiny.build(), tiny.example())
    values = [record.metrics[training.task.main_metric] for record in records(tmp_path, EpochRecord)]
    best = checkpoint.best(training.checkpoints)
    assert best.state["progress"]["best"] == max(values)
    assert best.state["progress"]["epoch"] == values.index(max(values)) + 1
    assert len(list(training.checkpoints.iterdir())) == len({best.state["progress"]["epoch"], 6})


def test_the_learning_rate_told_is_that_of_the_last_step(tmp_path):
    fitted(tmp_path, None, name="wide", epochs=2, schedule="poly", power=1.0)
    assert [record.learning_rate for record in records(tmp_path, EpochRecord)] == [3e-3, 1.5e-3]


def test_another_seed_gives_another_training(tmp_path):  # the same seed: test_interrupt.py
    for seed in (1, 2):
        fitted(tmp_path / str(seed), seed=seed, controller=None, name="wide", epochs=1)
    first, second = (records(tmp_path / name, EpochRecord)[0].loss for name in "12")
    assert first != second


def test_the_model_handed_in_is_not_cut(tmp_path):
    model = tiny.build()
    shapes = copy.deepcopy({path: tensor.shape for path, tensor in model.state_dict().items()})
    fit(tiny.training(tmp_path), model, tiny.example(), tiny.SHRINK)
    assert {path: tensor.shape for path, tensor in model.state_dict().items()} == shapes


class Deep(torch.nn.Module):
    """A segmenter with more blocks than it may cost."""

    def __init__(self, num_classes, blocks=3):
        super().__init__()
        self.stem = torch.nn.Conv2d(3, 16, 3, stride=2, padding=1)
        self.blocks = torch.nn.Sequential(*(SkippedPair(16) for _ in range(blocks)))
        self.head = torch.nn.ConvTranspose2d(16, num_classes, 2, stride=2)

    def forward(self, images):
        return self.head(self.blocks(self.stem(images)))


def deep():
    torch.manual_seed(0)
    return Deep(len(tiny.DATA.class_names))


DEPTH = Controller(budget=Budget(macs=27_000, min_share=0), begin=0.25, end=0.75)


def test_a_budget_that_leaves_no_share_is_met_by_depth_too(tmp_path):
    with pytest.raises(BudgetError, match="the smallest reachable is macs 27,392"):  # two channels in each layer
        Goal.of(prunus.trace(deep(), tiny.example()), DEPTH.budget)
    fitted = fit(tiny.training(tmp_path, ema_decay=0.9), deep(), tiny.example(), DEPTH)
    gone = [edit for edit in fitted.plan if isinstance(edit, BypassBlock)]
    assert gone and all(edit.kind == "SkippedPair" for edit in gone)
    assert records(tmp_path, EpochRecord)[-1].macs == prunus.trace(fitted.model, tiny.example()).macs() <= 27_000
    again = prunus.apply(fitted.plan, deep())
    assert [p.shape for p in again.parameters()] == [p.shape for p in fitted.model.parameters()]


@pytest.mark.parametrize("step", [9, 14])
def test_a_training_that_has_lost_a_block_goes_on_bit_by_bit(tmp_path, step):
    undisturbed = fit(tiny.training(tmp_path / "a", ema_decay=0.9), deep(), tiny.example(), DEPTH)

    def stop(name, now, steps, loss):
        if now == step:
            os.kill(os.getpid(), signal.SIGTERM)

    stopped = dataclasses.replace(tiny.training(tmp_path / "b", ema_decay=0.9), ticked=stop)
    with pytest.raises(InterruptedTrainingError):
        fit(stopped, deep(), tiny.example(), DEPTH)
    again = fit(tiny.training(tmp_path / "b", ema_decay=0.9), deep(), tiny.example(), DEPTH)
    assert any(isinstance(edit, BypassBlock) for edit in again.plan)
    assert again.plan == undisturbed.plan
    for found, wanted in zip(again.model.parameters(), undisturbed.model.parameters(), strict=True):
        assert torch.equal(found, wanted)


def test_a_layer_whose_block_would_stay_keeps_its_share():
    """Emptied, `first` leaves a bias to `second` that `third` pads with zeros: no constant for each channel."""

    class Three(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second, self.third = (torch.nn.Conv2d(8, 8, 3, padding=1) for _ in range(3))

        def forward(self, x):
            return x + self.third(torch.relu(self.second(torch.relu(self.first(x)))))

    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), Three(), torch.nn.Conv2d(8, 2, 1))
    image = torch.randn(1, 3, 9, 9)
    kept = goal_of(model, prunus.trace(model, image), image, Budget(macs=0.5, min_share=0)).floors
    assert (kept["1.first"], kept["1.second"], kept["0"]) == (2, 0, 2)
