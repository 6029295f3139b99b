"""A sweep: one recipe at several budgets, in folders that workers share, and the frontier that comes of it."""

import json
import sys
from pathlib import Path

import optuna
import pytest
import tiny
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from prunus.cli import main
from prunus.errors import FolderInUseError, RecipeError
from prunus.pipeline.sweep import sweep
from prunus.records import EpochRecord, read
from prunus.report.frontier import Point, figure, on_frontier
from prunus.train.lock import lock

SHRINK = "shrink: {begin: 0.0, end: 0.5, budget: {macs: 0.6}}\n"
QUICK = ("train.epochs=2", "train.evaluate_every=2")


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    path = tiny.write_recipe(tmp_path_factory.mktemp("sweep"))
    path.write_text(path.read_text() + SHRINK)
    return path


def trials(folder):
    storage = JournalStorage(JournalFileBackend(str(folder / "journal.log")))
    return optuna.load_study(study_name="sweep", storage=storage).trials


def test_workers_share_a_folder_and_the_last_tells_the_frontier(recipe, tmp_path):
    asked = (recipe, [0.8, 0.4, 0.0001], [*QUICK, f"output={tmp_path / 'all'}"])
    folder = tmp_path / "all"
    with lock(folder / "macs-0.4"):  # another worker is at it
        first = sweep(*asked)
    assert first.done == (0.8,) and first.elsewhere == (0.4,) and first.report is None
    assert list(first.failed) == [0.0001] and "cannot be met" in first.failed[0.0001]
    before = (folder / "macs-0.8" / "records.jsonl").read_bytes()
    last = sweep(*asked)
    assert last.done == (0.8, 0.4) and not last.elsewhere
    assert (folder / "macs-0.8" / "records.jsonl").read_bytes() == before  # what is done is not done again
    trained = [{r.model for r in read(folder / f"macs-{b}") if isinstance(r, EpochRecord)} for b in (0.8, 0.4)]
    assert trained == [{"wide", "narrow"}, {"narrow"}]
    points = {point["name"]: point for point in json.loads((folder / "frontier.json").read_text())}
    assert points.keys() == {"wide", "macs 0.8", "macs 0.4"}
    assert points["macs 0.4"]["macs"] < points["macs 0.8"]["macs"] < points["wide"]["macs"]
    assert last.report is not None
    page = last.report.read_text()
    assert "mIoU against milliseconds" in page and "macs 0.0001:" in page and "cannot be met" in page
    complete = [trial for trial in trials(folder) if trial.values is not None]
    assert [trial.params["budget"] for trial in complete] == [0.8, 0.4]
    assert all(0 <= trial.values[0] <= 1 and trial.values[1] > 0 for trial in complete)
    with pytest.raises(RecipeError, match=r"macs-0.8 holds a run of another recipe: `train.epochs` is 2 there, 3 here"):
        sweep(recipe, [0.8], [*QUICK, "train.epochs=3", f"output={folder}"])


def test_a_family_is_no_sweep(recipe, tmp_path):
    asked = ["train.epochs=8", f"output={tmp_path}", "shrink.budgets=[0.8,0.4]"]
    with pytest.raises(RecipeError, match=r"shrink\.budgets=\[\]"):
        sweep(recipe, [0.8, 0.4], asked)
    assert not list(tmp_path.iterdir())


def test_the_last_worker_sees_what_others_have_ended_meanwhile(recipe, tmp_path, monkeypatch):
    """Another worker has 0.8, and ends while this one is at 0.4: nobody comes after this one."""
    done = set()

    def run(chosen, watch):
        folder = Path(chosen.output)
        if folder.name == "macs-0.8":
            raise FolderInUseError(f"{folder} is in use by another run")
        done.update({folder, folder.with_name("macs-0.8")})

    monkeypatch.setattr("prunus.pipeline.sweep.run", run)
    monkeypatch.setattr("prunus.pipeline.sweep._is_done", lambda folder: folder in done)
    monkeypatch.setattr("prunus.pipeline.sweep._values", lambda folder: (0.5, 1.0))
    monkeypatch.setattr("prunus.pipeline.sweep._told", lambda planned, done, failed: planned.folder / "report.html")
    found = sweep(recipe, [0.8, 0.4], [f"output={tmp_path}"])
    assert found.done == (0.8, 0.4) and found.report == tmp_path / "report.html"
    assert [trial.params["budget"] for trial in trials(tmp_path)] == [0.4, 0.8]


@pytest.mark.parametrize(
    ("budgets", "overrides", "bound", "said"),
    [
        ([], [], None, "give at least one"),
        ([0.5, 0.5], [], None, "none twice"),
        ([0.5], ["shrink=null"], None, "its shrink is null"),
        ([0.5], [], "watts", "choose one of macs"),
        ([0.5], ["shrink.budget.params=0.5"], None, "bounds macs, params: name the quantity that the budgets bound"),
    ],
)
def test_a_sweep_of_nothing_is_refused(recipe, tmp_path, budgets, overrides, bound, said):
    with pytest.raises(RecipeError, match=said):
        sweep(recipe, budgets, [*overrides, f"output={tmp_path / 'none'}"], bound=bound)
    assert not (tmp_path / "none").exists()


def test_a_folder_with_a_run_from_weights_of_its_own_is_another_recipe(recipe, tmp_path):
    (tmp_path / "macs-0.8").mkdir()
    (tmp_path / "macs-0.8" / "recipe.yaml").write_text("name: tiny\nbaseline: untrained\nweights: w.safetensors\n")
    with pytest.raises(RecipeError, match=r"macs-0.8 holds a run of another recipe"):
        sweep(recipe, [0.8], [*QUICK, f"output={tmp_path}"])


def test_without_optuna_it_says_what_to_install(recipe, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert main(["sweep", str(recipe), "--budgets", "0.8", "0.4", f"output={tmp_path / 'none'}"]) == 1
    assert "prunus[sweep]" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["sweep", str(recipe), "--budgets", "much"])
    assert "'much' is not a number" in capsys.readouterr().err


def test_a_file_that_is_no_journal_is_named(recipe, tmp_path):
    (tmp_path / "journal.log").write_text("[")
    with pytest.raises(RecipeError, match=r"journal.log cannot be read as a journal"):
        sweep(recipe, [0.8], [f"output={tmp_path}"])


def test_the_frontier_is_what_no_other_beats_in_both():
    def point(name, ms, value):
        fields = {"metric": "mIoU", "p95_ms": ms, "macs": 1, "params": 1, "where": "here", "folder": name}
        return Point(name=name, median_ms=ms, value=value, **fields)

    points = [
        point("a", 3.0, 0.9),
        point("b", 2.0, 0.5),
        point("c", 2.5, 0.4),
        point("d", 1.0, 0.3),
        point("e", 3.0, 0.8),
    ]
    assert [each.name for each in on_frontier(points)] == ["d", "b", "a"]
    assert figure(points)["data"][0]["x"] == [1.0, 2.0, 3.0]
