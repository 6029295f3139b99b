"""The recipe is changed between a run and its resumption."""

import dataclasses
from pathlib import Path

import pytest
import tiny
import torch

from prunus import cli, pipeline, recipe
from prunus.errors import CheckpointError, RecipeError
from prunus.pipeline.run_folder import prepare_run_folder
from prunus.records import EpochRecord, RunRecord, read
from prunus.train.fit import fit
from prunus.train.settings import OptimizerSettings

RECIPE = {"name": "tiny", "train": {"epochs": 4, "optimizer": {"learning_rate": 3e-3}}}
CHANGED = {"name": "tiny", "train": {"epochs": 4, "optimizer": {"learning_rate": 1e-4}}}


class Stopped(Exception):  # noqa: N818
    pass


def begin(folder):
    """Train two epochs and a half."""

    def tick(name, step, steps, loss):
        if step == 10:
            raise Stopped

    training = dataclasses.replace(tiny.training(folder), ticked=tick)
    with pytest.raises(Stopped):
        fit(training, tiny.build(), tiny.example(), tiny.SHRINK)


def test_what_differs_is_said_and_refused_unless_told(tmp_path):
    assert not prepare_run_folder(tmp_path, RECIPE)
    begin(tmp_path)
    assert prepare_run_folder(tmp_path, RECIPE)
    with pytest.raises(RecipeError) as refusal:
        prepare_run_folder(tmp_path, CHANGED)
    assert "`train.optimizer.learning_rate` is 0.003 there, 0.0001 here" in str(refusal.value)
    assert "to resume from its checkpoints under this recipe, give --accept-changes" in str(refusal.value)
    assert prepare_run_folder(tmp_path, CHANGED, accept_changes=True)
    assert prepare_run_folder(tmp_path, CHANGED)  # it is its recipe now
    with pytest.raises(RecipeError):
        prepare_run_folder(tmp_path, RECIPE)


def test_told_to_go_on_the_new_settings_hold(tmp_path):
    begin(tmp_path)
    rates = []
    optimizer = OptimizerSettings(learning_rate=1e-4, weight_decay=0.5)
    training = tiny.training(tmp_path, optimizer=optimizer, schedule="constant")
    step = torch.optim.Adam.step

    def noted(self, *arguments, **keywords):
        rates.append([(group["lr"], group["weight_decay"]) for group in self.param_groups])
        return step(self, *arguments, **keywords)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim.Adam, "step", noted)
        fit(training, tiny.build(), tiny.example(), tiny.SHRINK)
    assert rates == [[(1e-4, 0.5), (1e-4, 0.0)]] * 8  # from the first step on
    assert [record.epoch for record in read(tmp_path) if isinstance(record, EpochRecord)] == [1, 2, 3, 4]


def test_a_whole_run_goes_on_by_the_command_line_and_its_report_notes_what_was_changed(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    path, changed = tiny.write_recipe(tmp_path), ("baseline=false", "train.optimizer.learning_rate=0.0001")

    def stop(name, step, steps, loss):
        if step == 10:
            raise Stopped

    with pytest.raises(Stopped):
        pipeline.run(recipe.load(pipeline.Recipe, path, changed[:1]), watch=pipeline.Watch(step=stop))
    assert cli.main(["run", str(path), *changed]) == 1
    assert "--accept-changes" in capsys.readouterr().err
    assert cli.main(["run", str(path), *changed, "--accept-changes"]) == 0
    assert cli.main(["run", str(path), *changed]) == 0  # it is its recipe now
    folder = Path("runs/tiny")
    assert [record.epoch for record in read(folder) if isinstance(record, EpochRecord)] == [1, 2, 3, 4]
    recipes = [record.recipe for record in read(folder) if isinstance(record, RunRecord)]
    assert [each["train"]["optimizer"]["learning_rate"] for each in recipes] == [0.0005, 0.0001]
    said = "The recipe was changed while the run was under way: `train.optimizer.learning_rate` is 0.0005 there"
    assert said in (folder / "report.html").read_text()


def test_another_optimizer_cannot_take_over(tmp_path):
    begin(tmp_path)
    training = tiny.training(tmp_path, optimizer=tiny.SGD)
    with pytest.raises(CheckpointError, match="it is of another optimizer than the recipe's"):
        fit(training, tiny.build(), tiny.example(), tiny.SHRINK)


def test_a_checkpoint_of_another_network_is_told_by_its_tensors(tmp_path):
    fit(tiny.training(tmp_path, epochs=1), tiny.build(), tiny.example())
    told = r"of another network: encoder\.0\.weight is \[16, 3, 3, 3\] there, \[8, 3, 3, 3\] here; .*; 18 of 22 tensors"
    with pytest.raises(CheckpointError, match=told):
        fit(tiny.training(tmp_path, epochs=1), tiny.build(width=8), tiny.example())


def test_a_training_cannot_end_before_its_checkpoint(tmp_path):
    begin(tmp_path)
    with pytest.raises(CheckpointError, match="cannot have 1 epochs: 2 are done"):
        fit(tiny.training(tmp_path, epochs=1), tiny.build(), tiny.example(), tiny.SHRINK)


def test_a_training_that_others_have_followed_cannot_go_on(tmp_path):
    first, second = (tiny.training(tmp_path, epochs=2), tiny.training(tmp_path, epochs=2, name="other"))
    for training in (first, second):
        fit(training, tiny.build(), tiny.example())
    before = read(tmp_path)
    with pytest.raises(CheckpointError, match="it had ended, and the training of other has begun after it"):
        fit(tiny.training(tmp_path, epochs=3), tiny.build(), tiny.example())
    assert read(tmp_path) == before


def test_a_change_that_the_checkpoints_do_not_fit_leaves_the_folder_its_recipe(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    path = str(tiny.write_recipe(tmp_path))
    short = ("baseline=false", "train.epochs=2")
    assert cli.main(["run", path, *short]) == 0
    assert cli.main(["run", path, *short, "train.optimizer.name=sgd", "--accept-changes"]) == 1
    assert "it is of another optimizer than the recipe's" in capsys.readouterr().err
    assert cli.main(["run", path, *short, "model.init_args.width=8", "--accept-changes"]) == 1
    assert "is of another network: edit 0 (RemoveChannels): encoder.0.weight" in capsys.readouterr().err
    assert cli.main(["run", path, *short]) == 0
