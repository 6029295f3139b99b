"""What the joint training starts with and learns from: by default the wide network, where one has been trained."""

import dataclasses

import pytest
import tiny
import torch

import prunus
from prunus import recipe
from prunus.errors import RecipeError
from prunus.models.weights import Weights
from prunus.pipeline import Expand, stages
from prunus.pipeline.recipe import Recipe
from prunus.pipeline.sweep import sweep
from prunus.records import NoteRecord, read
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
    ("changes", "starts_wide", "teacher"),
    [
        ({}, True, Distillation()),
        ({"baseline": False}, False, None),
        ({"shrink": None}, False, None),
        ({"edits": (Expand(layers="encoder.3.*", rate=2, keep_function=True),)}, False, Distillation()),
        ({"start": "fresh"}, False, Distillation()),
        ({"start": "fresh", "distillation": None}, False, None),
        ({"distillation": None}, True, None),
        ({"distillation": Distillation(weight=0.2)}, True, Distillation(weight=0.2)),
        ({"weights": WHOLE}, True, Distillation()),
        ({"weights": WHOLE, "baseline": "untrained"}, True, Distillation()),
        # a network of which a part has fresh weights has not been trained
        ({"weights": dataclasses.replace(WHOLE, into="encoder"), "baseline": "untrained"}, False, None),
        ({"weights": dataclasses.replace(WHOLE, leave_out=("head",)), "baseline": "untrained"}, False, None),
        ({"shrink": None, "start": "wide"}, True, None),
    ],
)
def test_the_wide_network_starts_and_teaches_where_it_is_trained(changes, starts_wide, teacher):
    changed = dataclasses.replace(RECIPE, **changes)
    assert changed.starts_wide == starts_wide and changed.stages[0].distillation == teacher


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


def test_a_teacher_is_settings_or_a_word(tmp_path):
    path = tiny.write_recipe(tmp_path)
    with pytest.raises(RecipeError, match="must be a mapping of Distillation's keys, or auto, not 'wide'"):
        recipe.load(Recipe, path, ["distillation=wide"])
    assert recipe.load(Recipe, path, ["distillation=auto"]).distillation == "auto"
    assert recipe.load(Recipe, path, ["distillation.weight=0.2"]).distillation == Distillation(weight=0.2)


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
    prunus.run(dataclasses.replace(RECIPE, start=start, output=str(tmp_path / "run")))
    (_, built, nobody), (_, wide, _), (name, first, teacher), _ = begun
    assert nobody is None and name == "narrow" and equal(teacher.state_dict(), wide)
    assert equal(first, wide if start == "auto" else built) and not equal(wide, built)
    (note,) = [record.text for record in read(tmp_path / "run") if isinstance(record, NoteRecord)]
    said = "starts with its weights and learns from its scores" if start == "auto" else "learns from its scores"
    assert note == f"The wide network is trained first: the joint training {said}."


def test_the_runs_of_a_sweep_share_the_wide_network(tmp_path, begun):
    path = tiny.write_recipe(tmp_path)
    path.write_text(path.read_text() + "shrink: {begin: 0.0, end: 0.5, budget: {macs: 0.6}}\n")
    quick = ["train.epochs=2", "train.evaluate_every=2"]
    sweep(path, [0.8, 0.4], [*quick, f"output={tmp_path / 'all'}"])
    assert [name for name, *_ in begun] == ["wide", "wide", "narrow", "narrow", "narrow", "narrow"]
    together = begun.pop()[1]
    assert equal(begun[-1][1], begun[1][1]) and equal(begun[-1][2].state_dict(), begun[1][1])
    begun.clear()
    alone = prunus.run(path, [*quick, "shrink.budget.macs=0.4", f"output={tmp_path / 'alone'}"])
    assert equal(begun[-1][1], together) and (alone / "wide" / "weights.safetensors").is_file()
