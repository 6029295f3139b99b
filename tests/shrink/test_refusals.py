"""What a Shrinker refuses, before anything is trained where it can be known."""

import copy

import loops
import pytest
import torch
from torch import nn

import prunus
from prunus.errors import BudgetError, RecipeError, TraceError, TrainingError


def shrinker(model=None, optimizer=None, **settings):
    model = loops.build() if model is None else model
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1) if optimizer is None else optimizer
    return loops.shrinker_of(model, optimizer, **settings)


def test_an_optimizer_of_another_network():
    other = torch.optim.SGD(loops.build().parameters(), lr=0.1)
    with pytest.raises(TrainingError, match=r"holds none of the \d+ parameters of Net.*made of model.parameters"):
        shrinker(optimizer=other)
    with pytest.raises(TrainingError, match=r"takes the optimizer, a torch.optim.Optimizer, not 0.1"):
        shrinker(optimizer=0.1)


@pytest.mark.parametrize("kind", ["weights", "others", "stem"])
def test_two_optimizers_of_one_network(kind):
    """The state that the other one keeps would not follow a cut."""
    model = loops.build()
    chosen = {
        "weights": lambda name, tensor: tensor.dim() > 1,
        "others": lambda name, tensor: tensor.dim() == 1,
        "stem": lambda name, tensor: name.startswith("stem"),
    }[kind]
    held = [tensor for name, tensor in model.named_parameters() if chosen(name, tensor)]
    with pytest.raises(TrainingError, match=r"does not hold \d+ parameters of Net.*a parameter group of their own"):
        shrinker(model, torch.optim.SGD(held, lr=0.1))
    whole = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(TrainingError, match="make one with parameter groups"):
        shrinker(model, [whole, torch.optim.AdamW(model.parameters())])
    going = shrinker(model, whole)
    with pytest.raises(TrainingError, match=r"does not hold \d+ parameters"):
        going.use(torch.optim.SGD(held, lr=0.1))


def test_parameters_that_nothing_trains_are_frozen_and_left_out():
    model = loops.build()
    model.head.requires_grad_(False)
    rest = [tensor for tensor in model.parameters() if tensor.requires_grad]
    assert shrinker(model, torch.optim.SGD(rest, lr=0.1)).groups.macs() > 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 0}, "steps is 0"),
        ({"steps": 2.5}, "steps is 2.5"),
        ({"steps": None, "epochs": -1}, "epochs is -1"),
        ({"steps": 3, "epochs": 4}, "at least one in each"),
        ({"every": 0}, "every is 0"),
        ({"every": 25}, "every is 25, and the whole training has 24 steps"),
        ({"begin": 0.6}, "begin 0.6, end 0.6"),
        ({"begin": "early"}, "shrink.begin is 'early'"),
        ({"settled": [0.9]}, "shrink.settled is"),
        ({"settled": 2.0}, "settled"),
        ({"keep": ["stm"]}, "'stm' matches no layer"),
    ],
)
def test_settings_that_make_no_sense(settings, message):
    with pytest.raises(RecipeError, match=message):
        shrinker(**settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"budget": 0.4}, r"takes a Budget, as in budget=prunus.Budget\(macs=0.4\), not 0.4"),
        (
            {"budget": prunus.Budget(macs=0.001)},
            r"smallest reachable is macs [\d,]+; most of its macs lie in \S+ \d+%, ",
        ),
        (
            {"budget": prunus.Budget(params=10**7)},
            r"meets the budget as it is: it has [\d,]+ params, the budget allows 10,000,000",
        ),
        ({"budget": prunus.Budget(latency=0.5), "meter": 3}, "needs a meter"),
    ],
)
def test_budgets_that_are_met_already_or_out_of_reach(settings, message):
    with pytest.raises(BudgetError, match=message):
        shrinker(**settings)


def test_a_latency_out_of_reach_is_refused_before_the_first_step():
    model = loops.build()
    optimizer = loops.OPTIMIZERS["sgd"](model.parameters())
    slow = shrinker(model, optimizer, budget=prunus.Budget(latency_ms=1.0), meter=lambda network: 2.0)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(BudgetError, match="the smallest reachable network takes 2 ms"):
        loops.train(model.eval(), optimizer, slow)
    loops.assert_same(dict(model.state_dict()), dict(before))


class FullyShardedDataParallel(nn.Module):
    """Of the name of torch's: making a real one needs several processes."""

    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, images):
        return self.module(images)


class DeepSpeedEngine(FullyShardedDataParallel):
    pass


@pytest.mark.parametrize("wrapper", [FullyShardedDataParallel, DeepSpeedEngine])
def test_sharded_networks_are_refused_by_name(wrapper):
    with pytest.raises(TrainingError, match=f"{wrapper.__name__}.*DistributedDataParallel"):
        shrinker(wrapper(loops.build()))


def test_wrapped_networks_are_refused_with_what_to_pass():
    with pytest.raises(TrainingError, match=r"DataParallel: pass what is inside, `model.module`"):
        shrinker(nn.DataParallel(loops.build()))
    with pytest.raises(TrainingError, match="pass the module that was compiled"):
        shrinker(torch.compile(loops.build(), backend="eager"))
    with pytest.raises(TrainingError, match="takes the network"):
        shrinker(model=loops.build, optimizer=torch.optim.SGD(loops.build().parameters()))


def test_a_network_that_cannot_be_read():
    class Branches(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(8, 8)

        def forward(self, images):
            return self.layer(images) if images.sum() > 0 else images

    with pytest.raises(TraceError):
        shrinker(Branches())


def test_an_average_of_other_shapes():
    found = shrinker()
    with pytest.raises(TrainingError, match=r"not a copy of the network: stem.0.weight is \[16, 3, 3, 3\] there, \[12"):
        found.follow(loops.Net(width=16))
    with pytest.raises(TrainingError, match="not the network itself"):
        found.follow(found.network.model)
    with pytest.raises(TrainingError, match="takes a copy of the network"):
        found.follow({"weights": 1})


def test_an_optimizer_whose_state_cannot_be_cut_is_refused_at_its_first_step():
    model = loops.build()
    optimizer = torch.optim.Adafactor(model.parameters(), lr=1e-3)
    with pytest.raises(TrainingError, match=r"Adafactor keeps 'row_var' of shape .* for stem.0.weight"):
        loops.train(model, optimizer, shrinker(model, optimizer))


def test_lbfgs_is_refused_at_its_first_step():
    model = loops.build()
    optimizer = torch.optim.LBFGS(model.parameters())
    shrinker(model, optimizer)

    def closure():
        optimizer.zero_grad()
        images, labels = loops.batch(0)
        loss = nn.functional.cross_entropy(model(images), labels)
        loss.backward()
        return loss

    with pytest.raises(TrainingError, match=r"LBFGS keeps .* Prunus cannot cut it"):
        optimizer.step(closure)


def test_a_layer_that_is_replaced_behind_its_back():
    model = loops.build()
    optimizer = loops.OPTIMIZERS["sgd"](model.parameters())
    found = shrinker(model, optimizer)
    loops.train(model, optimizer, found, range(5))
    model.body[0] = nn.Conv2d(12, 24, 3, padding=1)
    with pytest.raises(TrainingError, match="2 parameters of Net have been replaced"):
        loops.train(model, optimizer, found, range(5, loops.STEPS))


def test_parameters_that_are_assigned_behind_its_back():
    model = loops.build()
    optimizer = loops.OPTIMIZERS["sgd"](model.parameters())
    found = shrinker(model, optimizer)
    loops.train(model, optimizer, found, range(7))
    model.load_state_dict({path: tensor.clone() for path, tensor in model.state_dict().items()}, assign=True)
    with pytest.raises(TrainingError, match="have been replaced by others"):
        loops.train(model, optimizer, found, range(7, loops.STEPS))


def test_an_optimizer_that_the_trainer_made_anew():
    model = loops.build()
    found = shrinker(model, loops.OPTIMIZERS["sgd"](model.parameters()))
    another = loops.OPTIMIZERS["sgd"](model.parameters())
    with pytest.raises(TrainingError, match="SGD that the Shrinker was given has not stepped"):
        loops.train(model, another, found, [0] * 1100)


def test_end_epoch_of_a_schedule_in_steps():
    with pytest.raises(TrainingError, match=r"end_epoch\(\) is for Shrinker\(..., epochs=N\)"):
        shrinker().end_epoch()
