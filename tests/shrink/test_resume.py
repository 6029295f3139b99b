"""A training that is stopped anywhere and goes on equals the undisturbed one bit for bit."""

import itertools
import json

import loops
import pytest
import safetensors.torch
import torch

import prunus
from prunus.errors import CheckpointError

SETTINGS = {
    "steps": {"steps": loops.STEPS, "every": 3},
    "settled": {"steps": loops.STEPS, "every": 1, "settled": 0.5},
    "milliseconds": {
        "steps": loops.STEPS,
        "budget": prunus.Budget(latency=0.5),
        "meter": lambda network: sum(parameter.numel() for parameter in network.parameters()) / 1000,
    },
    "from the first step": {"steps": loops.STEPS, "begin": 0.0, "end": 1.0, "every": 4},
}


class Training:
    """A network, its optimizer, average, schedule and shrinker."""

    def __init__(self, optimizer="adamw", settings="steps"):
        self.model = loops.build()
        self.optimizer = loops.OPTIMIZERS[optimizer](self.model.parameters())
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, loops.STEPS)
        average = torch.optim.swa_utils.get_ema_multi_avg_fn(0.9)
        self.average = torch.optim.swa_utils.AveragedModel(self.model, multi_avg_fn=average, use_buffers=True)
        self.shrinker = loops.shrinker_of(self.model, self.optimizer, **SETTINGS[settings])
        self.shrinker.follow(self.average)
        self.parts = {name: part for name, part in vars(self).items() if hasattr(part, "state_dict")}

    def run(self, steps):
        def after(step):
            self.schedule.step()
            self.average.update_parameters(self.model)

        loops.train(self.model, self.optimizer, self.shrinker, steps, after=after)

    def save(self, path):
        torch.save({name: part.state_dict() for name, part in self.parts.items()}, path)

    def load(self, path):
        content = torch.load(path, weights_only=True)
        for name in ("shrinker", "model", "optimizer", "schedule", "average"):  # the shrinker's first
            self.parts[name].load_state_dict(content[name])

    def state(self):
        return {name: part.state_dict() for name, part in self.parts.items()}


@pytest.fixture(scope="module", params=[("adamw", name) for name in SETTINGS] + [("sgd", "steps")], ids=str)
def undisturbed(request):
    training = Training(*request.param)
    training.run(range(loops.STEPS))
    assert len(training.shrinker.plan) > 0
    return request.param, training.state()


@pytest.mark.parametrize("stop", [1, 5, 6, 7, 9, 13, 14, 15, 20])
def test_stopped_anywhere_it_goes_on_bit_by_bit(undisturbed, stop, tmp_path):
    settings, expected = undisturbed
    first = Training(*settings)
    first.run(range(stop))
    first.save(tmp_path / "state.pt")
    second = Training(*settings)
    second.load(tmp_path / "state.pt")
    second.run(range(stop, loops.STEPS))
    loops.assert_same(second.state(), expected)


@pytest.mark.parametrize("stop", [1, 5, 6, 9, 14])
def test_stopped_between_the_step_of_the_optimizer_and_its_own(undisturbed, stop, tmp_path):
    """As a callback of a trainer may be, whose checkpoints another callback writes."""
    settings, expected = undisturbed
    first = Training(*settings)
    step, calls = first.shrinker.step, itertools.count(1)
    first.shrinker.step = lambda: None if next(calls) == stop else step()
    first.run(range(stop))
    first.save(tmp_path / "state.pt")
    second = Training(*settings)
    second.load(tmp_path / "state.pt")
    second.shrinker.step()  # where nothing is left to do, it does nothing
    second.run(range(stop, loops.STEPS))
    found, wanted = second.state(), dict(expected)
    found.pop("average"), wanted.pop("average")  # updated before the press that came late, not after it
    loops.assert_same(found, wanted)


def test_the_state_is_tensors_and_json_that_safetensors_holds(tmp_path):
    first = Training()
    first.run(range(13))
    state = first.shrinker.state_dict()
    tensors = {name: value for name, value in state.items() if isinstance(value, torch.Tensor)}
    texts = {name: value for name, value in state.items() if name not in tensors}
    assert all(json.loads(text) for text in texts.values())
    safetensors.torch.save_file(tensors, tmp_path / "state.safetensors", metadata=texts)
    with safetensors.safe_open(tmp_path / "state.safetensors", "pt") as file:
        read = {name: file.get_tensor(name) for name in file.keys()} | file.metadata()  # noqa: SIM118
    second = Training()
    second.shrinker.load_state_dict(read)
    assert [p.shape for p in second.model.parameters()] == [p.shape for p in first.model.parameters()]
    loops.assert_same(second.shrinker.state_dict(), state)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("plan"), "holds 'plan', a str"),
        (lambda state: state.update(progress="{}"), "has format 1"),
        (lambda state: state.update(progress=state["progress"].replace('"step"', '"stop"')), "stop"),
        (lambda state: state.update(plan="[]"), "cannot be read"),
        (lambda state: state.update(importance=state["importance"][1:]), "channel groups"),
    ],
)
def test_what_is_no_state_is_refused_and_nothing_is_changed(change, message):
    first = Training()
    first.run(range(13))
    state = first.shrinker.state_dict()
    change(state)
    second = Training()
    before = loops.snapshot(second.model, second.optimizer, second.average)
    with pytest.raises(CheckpointError, match=message):
        second.shrinker.load_state_dict(state)
    loops.assert_same(loops.snapshot(second.model, second.optimizer, second.average), before)


def test_a_state_of_another_network_or_of_a_longer_training_is_refused():
    first = Training()
    first.run(range(13))
    state = first.shrinker.state_dict()
    other = loops.build(lambda: loops.Net(width=16))
    optimizer = torch.optim.SGD(other.parameters(), lr=0.1)
    with pytest.raises(CheckpointError, match="of another network"):
        loops.shrinker_of(other, optimizer).load_state_dict(state)
    model = loops.build()
    shorter = loops.shrinker_of(model, torch.optim.SGD(model.parameters(), lr=0.1), steps=9, every=3)
    with pytest.raises(CheckpointError, match=r"has 3 periods .* has done 4"):
        shorter.load_state_dict(state)


def test_an_optimizer_that_was_loaded_first_is_named():
    first = Training()
    first.run(range(13))
    model = loops.build()
    optimizer = loops.OPTIMIZERS["sgd"](model.parameters())
    again = loops.shrinker_of(model, optimizer)
    optimizer.load_state_dict(first.optimizer.state_dict())
    with pytest.raises(CheckpointError, match="its load_state_dict was called before the Shrinker's"):
        again.load_state_dict(first.shrinker.state_dict())
