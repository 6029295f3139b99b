"""One training that passes several budgets: a network of each, the same after every interruption."""

import dataclasses
import itertools
import os
import signal
from pathlib import Path

import pytest
import tiny
import torch
from test_run import RECIPE, only

import prunus
from prunus import pipeline, recipe
from prunus.backends.target import Target
from prunus.budget import Budget
from prunus.budget.controller import Controller
from prunus.budget.family import budget_name
from prunus.budget.schedule import Clock, Schedule
from prunus.errors import RecipeError
from prunus.pipeline import deployment
from prunus.records import (
    EpochRecord,
    EvaluationRecord,
    FamilyRecord,
    LatencyRecord,
    ParityRecord,
    Recorder,
    ShrinkRecord,
    read,
)
from prunus.report.facts import gather
from prunus.report.family import members
from prunus.report.headline import checks

NAMES = ["narrow-macs-0.7", "narrow-macs-0.5", "narrow"]
SHARES = dict(zip(NAMES, (0.7, 0.5, 0.3), strict=True))
FAMILY = dataclasses.replace(
    RECIPE,
    shrink=Controller(budgets=(0.7, 0.5, Budget(macs=0.3)), begin=0.25, end=0.75),
    train=dataclasses.replace(tiny.TRAIN, epochs=8, ema_decay=0.9),
    start="fresh",  # so that runs without a wide network are comparable
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return prunus.run(dataclasses.replace(FAMILY, output=str(tmp_path_factory.mktemp("family"))))


def weights(folder):
    """Return the weights of every network of the family."""
    return {name: prunus.load(folder / name, tiny.build).state_dict() for name in NAMES}


def test_each_network_meets_its_budget_and_is_deployed(folder):
    found = {record.model: record for record in only(folder, EvaluationRecord)}
    assert list(found) == ["wide", *NAMES]
    for name, share in SHARES.items():
        assert 0.9 * share * found["wide"].macs < found[name].macs <= share * found["wide"].macs
        assert prunus.trace(prunus.load(folder / name, tiny.build), tiny.example()).macs() == found[name].macs
        assert (folder / f"{name}.onnx").is_file()
    assert {record.model for record in only(folder, ParityRecord) if record.passed} == {"wide", *NAMES}
    assert {record.model for record in only(folder, LatencyRecord)} == {"wide", *NAMES}
    assert [(record.model, record.budget) for record in only(folder, FamilyRecord)] == [
        (name, {"macs": share}) for name, share in SHARES.items()
    ]


def test_a_branch_goes_on_where_the_trunk_passed_its_budget(folder):
    epochs = {name: [r for r in only(folder, EpochRecord) if r.model == name] for name in NAMES}
    trunk = {record.epoch: record for record in epochs["narrow"]}
    assert sorted(trunk) == list(range(1, 9))
    for name, share in list(SHARES.items())[:-1]:
        first, *_, last = epochs[name]
        passed = trunk[first.epoch - 1]
        wide = max(record.macs for record in epochs["narrow"])
        assert first.macs == last.macs == passed.macs <= share * wide < trunk[first.epoch - 2].macs
        assert [record.epoch for record in epochs[name]] == list(range(first.epoch, 9))
        for record in epochs[name]:  # the rest of the trunk's own schedule
            assert record.learning_rate == trunk[record.epoch].learning_rate
    assert {record.model for record in only(folder, ShrinkRecord)} == {"narrow"}
    assert epochs[NAMES[1]][0].epoch > epochs[NAMES[0]][0].epoch


def test_the_networks_differ_in_more_than_width(folder):
    outputs = [prunus.load(folder / name, tiny.build).eval()(tiny.example()) for name in NAMES]
    assert all(not torch.allclose(first, second) for first, second in itertools.pairwise(outputs))


def test_the_report_shows_the_family(folder):
    page = (folder / "report.html").read_text(encoding="utf-8")
    rows = page.partition('<section id="family"')[2].partition("</section>")[0]
    assert [f'data-member="{name}"' in rows for name in NAMES] == [True] * 3
    assert rows.count("at most") == rows.count(", met") == 3
    assert "the trunk itself" in rows and "after epoch 3" in rows
    assert '<section id="stages"' not in page
    assert "Budget of narrow-macs-0.7" in page


def test_what_yaml_says_is_what_python_says(folder, tmp_path):
    again = recipe.load(pipeline.Recipe, folder / "recipe.yaml")
    assert again.shrink == FAMILY.shrink
    path = tmp_path / "family.yaml"
    path.write_text(tiny.RECIPE + "shrink: {budgets: [0.7, 0.5, {macs: 0.3}], begin: 0.25, end: 0.75}\n")
    assert recipe.load(pipeline.Recipe, path, ["train.epochs=8"]).shrink == FAMILY.shrink


@pytest.mark.parametrize("stop", [9, 12, 13, 33, 50])
def test_stopped_at_any_moment_it_ends_at_equal_weights(folder, tmp_path, monkeypatch, stop):
    """Steps of 8 epochs of 4: 12 ends the epoch in which the first budget is passed; after 32 branches train."""
    monkeypatch.setattr(deployment, "deploy", lambda run, networks: None)  # most of the time
    chosen = dataclasses.replace(FAMILY, output=str(tmp_path), baseline=False)
    seen = [0]

    def count(*ignored):
        seen[0] += 1
        if seen[0] == stop:
            raise StopIteration

    with pytest.raises(StopIteration):
        prunus.run(chosen, watch=pipeline.Watch(step=count))
    prunus.run(chosen)
    assert_equal(weights(tmp_path), weights(folder))
    assert figures(tmp_path) == figures(folder)


MOMENTS = ("narrow-macs-0.7/*", "narrow-macs-0.5/.*", "narrow-macs-0.7/*-step-5", "narrow-macs-0.5/*-step-6")


def test_killed_when_a_branch_begins_and_while_it_trains_it_ends_at_equal_weights(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(deployment, "deploy", lambda run, networks: None)
    chosen = dataclasses.replace(FAMILY, output=str(tmp_path), baseline=False)
    for moment in MOMENTS:
        assert killed(chosen, moment) == -signal.SIGKILL
    prunus.run(chosen)
    assert_equal(weights(tmp_path), weights(folder))
    assert figures(tmp_path) == figures(folder)


def killed(chosen, moment):
    """Run in a forked process that kills itself just before or after a checkpoint that matches `moment` gets its name;
    return its exit code."""

    def end_at(path):
        if path.match(moment):
            os.kill(os.getpid(), signal.SIGKILL)

    def watched(path, target):
        end_at(path)
        end_at(found := rename(path, target))
        return found

    if (child := os.fork()) == 0:
        rename, Path.rename = Path.rename, watched
        prunus.run(chosen)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def figures(folder):
    return [
        (r.model, r.epoch, r.loss, r.macs) for r in read(folder) if isinstance(r, EpochRecord) and r.model != "wide"
    ]


def assert_equal(there, here):
    assert there.keys() == here.keys()
    for name in there:
        assert there[name].keys() == here[name].keys()
        assert all(torch.equal(there[name][key], here[name][key]) for key in there[name]), name


REFUSED = {
    "a budget above the one before": ({"budgets": (0.5, 0.7)}, "each below the one before"),
    "two that bound nothing in common": ({"budgets": (0.5, Budget(params=0.3))}, "in what both bound"),
    "bounds in two places": ({"budget": Budget(params=0.6), "budgets": (0.5, 0.3)}, "leave the bounds out"),
}


def test_the_budgets_take_the_place_of_the_multiply_adds_that_a_recipe_names():
    recipes = Path(__file__).parents[2] / "recipes"
    chosen = recipe.load(pipeline.Recipe, recipes / "street_erfnet.yaml", ["shrink.budgets=[0.7,0.4]"])
    assert [(each.macs, each.multiple_of) for each in chosen.shrink.sequence] == [(0.7, 8), (0.4, 8)]
    assert chosen.shrink.budget == chosen.shrink.sequence[-1]


def test_each_budget_may_be_for_a_target_of_its_own():
    small, large = Target(threads=2), Target(backend="openvino")
    budgets = (Budget(latency_ms=8, target=large), Budget(latency_ms=9, target=small))
    controller = Controller(budgets=budgets)
    assert controller.sequence == budgets  # milliseconds on two targets cannot be compared
    assert [budget_name(each) for each in budgets] == ["latency_ms-8-openvino", "latency_ms-9-onnxruntime"]
    found = dataclasses.replace(FAMILY, shrink=controller).benchmark.all_targets
    assert found[:2] == (large, small)
    with pytest.raises(RecipeError, match="would be called latency_ms-8-onnxruntime"):
        Controller(budgets=(Budget(latency_ms=8, target=small), Budget(latency_ms=8, target=Target())))


def test_each_budget_is_judged_on_its_own_target(tmp_path):
    recorder = Recorder(tmp_path)
    for backend, times in (("onnxruntime", (1.0, 9.0)), ("openvino", (9.0, 1.0))):
        for model, milliseconds in zip(("narrow-a", "narrow"), times, strict=True):
            recorder.write(
                LatencyRecord(
                    model=model, backend=backend, device="cpu", input_shape=(1, 3, 8, 8), threads=1, warmup=0,
                    repeats=1, median_ms=milliseconds, p95_ms=milliseconds, peak_memory_mb=None, precision="float32",
                )
            )  # fmt: skip
    for model, backend in (("narrow-a", "onnxruntime"), ("narrow", "openvino")):
        target = {"backend": backend, "threads": 1, "precision": "float32"}
        recorder.write(FamilyRecord(model=model, budget={"latency_ms": 2.0}, target=target))
    facts = gather(list(read(tmp_path)))
    assert [goal.reached for member in members(facts) for goal in member.goals] == [1.0, 1.0]
    assert [check.passed for check in checks(facts) if check.name.startswith("Budget of")] == [True, True]


@pytest.mark.parametrize(("settings", "reason"), REFUSED.values(), ids=REFUSED)
def test_budgets_that_make_no_family_are_refused(settings, reason):
    with pytest.raises(RecipeError, match=reason):
        Controller(**settings)


def test_a_recipe_without_room_for_its_family_is_refused():
    with pytest.raises(RecipeError, match="3 budgets need a segment each, and the training has 2 segments"):
        dataclasses.replace(FAMILY, train=dataclasses.replace(tiny.TRAIN, epochs=4))
    with pytest.raises(RecipeError, match=r"give the budgets to that last stage"):
        dataclasses.replace(FAMILY, then=(pipeline.Stage(name="more"),))


@pytest.mark.parametrize("settled", [None, 0.98])
@pytest.mark.parametrize(("periods", "every"), [(8, 1), (40, 1), (41, 2), (100, 7)])
def test_every_budget_is_passed_once_and_at_a_progress_of_one(periods, every, settled):
    controller = Controller(budgets=(0.7, 0.5, 0.3), begin=0.25, end=0.8, every=every, settled=settled)
    latest = controller.window(periods)[1] if settled else None
    schedule, progress, passed = Schedule(controller=controller, periods=periods), [], []
    for period in range(periods):
        clock = Clock(period=period, settled_at=latest)
        if schedule.has_just_passed(clock):
            passed.append((period, schedule.passed(clock)))
        if (found := schedule.beginning(clock)) is not None:
            progress.append(found)
    assert [number for _, number in passed] == [1, 2]
    assert progress.count(1) == 3 and progress[-1] == 1
    assert all(0 < each <= 1 for each in progress)
