"""What the joint training starts with: by default the wide network, where one has been trained."""

import dataclasses

import pytest
import tiny
import torch

import prunus
from prunus.errors import RecipeError
from prunus.models.weights import Weights
from prunus.pipeline import Expand, stages
from prunus.pipeline.recipe import Recipe
from prunus.pipeline.sweep import sweep
from prunus.records import RunRecord, read
from prunus.tasks.distillation import Distillation

RECIPE = Recipe(
    name="tiny",
    data=tiny.DATA,
    model=tiny.TinySegmenter,
    train=dataclasses.replace(tiny.TRAIN, epochs=2, evaluate_every=2),
    shrink=tiny.SHRINK,
    deploy=prunus.pipeline.Deploy(
        benchmark=prunus.BenchmarkSettings(backends=("onnxruntime",), repeats=2, warmup=0, measure_memory=False),
        parity_samples=2,
    ),
    report_samples=0,
)
LATE = dataclasses.replace(tiny.SHRINK, begin=None, end=None)
WHOLE = Weights(path="w.safetensors")


@pytest.mark.parametrize(
    ("changes", "starts_wide"),
    [
        ({}, True),
        ({"baseline": False}, False),
        ({"shrink": None}, False),
        ({"edits": (Expand(layers="encoder.3.*", rate=2, keep_function=True),)}, False),
        ({"start": "fresh"}, False),
        ({"weights": WHOLE}, True),
        ({"weights": WHOLE, "baseline": "untrained"}, True),
        # a network of which a part has fresh weights has not been trained
        ({"weights": dataclasses.replace(WHOLE, into="encoder"), "baseline": "untrained"}, False),
        ({"weights": dataclasses.replace(WHOLE, leave_out=("head",)), "baseline": "untrained"}, False),
        ({"shrink": None, "start": "wide"}, True),
    ],
)
def test_the_joint_training_starts_with_the_wide_network_where_that_is_trained(changes, starts_wide):
    assert dataclasses.replace(RECIPE, **changes).starts_wide == starts_wide


def test_what_is_trained_need_not_wait_as_long(tmp_path):
    begins = [
        dataclasses.replace(RECIPE, shrink=shrink, start=start).stages[0].shrink.shares
        for shrink in (LATE, dataclasses.replace(LATE, begin=0.2))
        for start in ("wide", "fresh")
    ]
    assert begins == [(0.1, 0.6), (0.25, 0.6), (0.2, 0.6), (0.2, 0.6)]


def test_a_start_without_a_wide_network_is_refused():
    with pytest.raises(RecipeError, match="start: wide begins with the wide network's weights"):
        dataclasses.replace(RECIPE, start="wide", baseline=False)


@pytest.fixture
def begun(monkeypatch):
    """What each training begins with: its name, the weights, who teaches."""
    seen, fit = [], stages.fit

    def noting(training, model, *others):
        weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        seen.append((training.name, weights, getattr(training.task, "teacher", None)))
        fitted = fit(training, model, *others)
        seen.append((training.name, {n: t.clone() for n, t in fitted.model.state_dict().items()}, None))
        return fitted

    monkeypatch.setattr(stages, "fit", noting)
    return seen


def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("start", ["auto", "fresh"])
def test_a_run_begins_with_what_the_wide_training_left(tmp_path, begun, start):
    taught = dataclasses.replace(RECIPE, start=start, distillation=Distillation())
    prunus.run(dataclasses.replace(taught, output=str(tmp_path / "run")))
    (_, built, nobody), (_, wide, _), (name, first, teacher), _ = begun
    assert nobody is None and name == "narrow" and equal(teacher.state_dict(), wide)
    assert equal(first, wide if start == "auto" else built) and not equal(wide, built)
    (run,) = [record for record in read(tmp_path / "run") if isinstance(record, RunRecord)]
    page = (tmp_path / "run" / "report.html").read_text()
    assert run.starts_wide == ("whose weights it began with" in page) == (start == "auto")


def test_the_runs_of_a_sweep_share_the_wide_network(tmp_path, begun):
    path = tiny.write_recipe(tmp_path)
    path.write_text(path.read_text() + "shrink: {begin: 0.0, end: 0.5, budget: {macs: 0.6}}\n")
    quick = ["train.epochs=2", "train.evaluate_every=2"]
    sweep(path, [0.8, 0.4], [*quick, f"output={tmp_path / 'all'}"])
    assert [name for name, *_ in begun] == ["wide", "wide", "narrow", "narrow", "narrow", "narrow"]
    together = begun.pop()[1]
    assert equal(begun[-1][1], begun[1][1])
    begun.clear()
    alone = prunus.run(path, [*quick, "shrink.budget.macs=0.4", f"output={tmp_path / 'alone'}"])
    assert equal(begun[-1][1], together) and (alone / "wide" / "weights.safetensors").is_file()
