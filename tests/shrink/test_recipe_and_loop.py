"""The same network, data and seeds through a recipe and through `Shrinker` in a plain loop give the same weights."""

import dataclasses

import pytest
import tiny
import torch
from loops import assert_same

import prunus
from prunus.budget.controller import Controller
from prunus.train.batches import steps_per_epoch, training_batches
from prunus.train.evaluate import evaluate
from prunus.train.fit import fit
from prunus.train.settings import OptimizerSettings

EPOCHS = 5
SETTINGS = {
    "usual": Controller(budget=prunus.Budget(macs=0.4)),
    "from the start": Controller(budget=prunus.Budget(params=0.4, multiple_of=2), begin=0.0, end=0.9),
    "two epochs a segment": Controller(budget=prunus.Budget(macs=0.4), begin=0.1, end=0.9, every=2),
    "one layer kept": Controller(budget=prunus.Budget(macs=0.7, keep=("encoder.0",))),
    "when settled": Controller(budget=prunus.Budget(macs=0.4), begin=0.2, end=0.8, settled=0.9),
}


def plain_loop(training, controller, *, by_steps):
    """What a user writes, with the recipe's batches, optimizer, schedule and average."""
    settings, split = training.settings, training.data.train()
    steps = steps_per_epoch(len(split), settings.batch_size)
    model = tiny.build()
    optimizer = settings.optimizer.build(model)
    scheduler = settings.scheduler(optimizer, steps)
    average = torch.optim.swa_utils.AveragedModel(
        model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(settings.ema_decay), use_buffers=True
    )
    length = {"steps": settings.epochs * steps} | ({"every": steps} if by_steps else {"epochs": settings.epochs})
    own = {"begin": controller.begin, "end": controller.end, "settled": controller.settled, "every": controller.every}
    shrinker = prunus.Shrinker(model, optimizer, tiny.example(), budget=controller.budget, **(own | length))
    shrinker.follow(average)
    torch.manual_seed(training.seed)
    for epoch in range(settings.epochs):
        model.train()
        for images, target in training_batches(split, settings, training.seed, epoch, 0, training.processes):
            loss = training.task.training_loss(images, model(images), target)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            scheduler.step()
            record = shrinker.step()
            average.update_parameters(model)
            assert by_steps or record is None
        if not by_steps:
            shrinker.end_epoch()
        evaluate(average.module, training.task, training.data.validation(), settings)
    return average.module, shrinker.plan


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("name", SETTINGS)
def test_a_recipe_and_a_plain_loop_give_the_same_weights(tmp_path, name, optimizer):
    controller = SETTINGS[name]
    changes = {"epochs": EPOCHS, "ema_decay": 0.9, "optimizer": OptimizerSettings(name=optimizer, learning_rate=3e-3)}
    training = tiny.training(tmp_path, **changes)
    fitted = fit(training, tiny.build(), tiny.example(), controller)
    assert len(fitted.plan) > 0
    model, plan = plain_loop(dataclasses.replace(training), controller, by_steps=False)
    assert plan == fitted.plan
    assert_same(dict(model.state_dict()), dict(fitted.model.state_dict()))


def test_in_steps_a_segment_is_as_long_as_it_is_said_to_be(tmp_path):
    """Here an epoch. The average is updated after a cut in one, before it in the other: weights differ by that."""
    training = tiny.training(tmp_path, epochs=EPOCHS, ema_decay=0.5)
    fitted = fit(training, tiny.build(), tiny.example(), SETTINGS["usual"])
    _, plan = plain_loop(training, SETTINGS["usual"], by_steps=True)
    assert plan == fitted.plan and len(plan) > 0


def test_a_penalty_that_empties_a_block_with_a_constant_of_its_own_does_not_stop_the_run(tmp_path):
    """The constant is rounded in the network; in float64 it is held against the unrounded one."""
    training = dataclasses.replace(tiny.training(tmp_path, ema_decay=0.9), penalty=prunus.GroupLasso(strength=0.05))
    fitted = fit(training, tiny.build(), tiny.example(), tiny.SHRINK)
    assert any(isinstance(edit, prunus.surgery.BypassBlock) for edit in fitted.plan)
