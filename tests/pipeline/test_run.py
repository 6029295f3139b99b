"""A whole run of seconds: what it leaves, what it refuses, how it goes on."""

import dataclasses
import errno
import functools
import json
import os

import pytest
import tiny
import torch

import prunus
from prunus import backends, pipeline, recipe
from prunus.data import CamVidData
from prunus.deploy import BenchmarkSettings, export_onnx
from prunus.errors import (
    BudgetError,
    CheckpointError,
    DataError,
    DeployError,
    ParityError,
    RecipeError,
    RecordError,
    TrainingError,
)
from prunus.pipeline import deployment, evaluation, stages
from prunus.pipeline.context import RunContext
from prunus.pipeline.run_folder import prepare_run_folder
from prunus.records import (
    EditRecord,
    EpochRecord,
    EvaluationRecord,
    LatencyRecord,
    NoteRecord,
    ParityRecord,
    Recorder,
    RemovalRecord,
    RunRecord,
    SampleRecord,
    ShrinkRecord,
    WidthsRecord,
    read,
)
from prunus.train import lock

RECIPE = pipeline.Recipe(
    name="tiny",
    data=tiny.DATA,
    model=tiny.TinySegmenter,
    train=tiny.TRAIN,
    shrink=tiny.SHRINK,
    deploy=pipeline.Deploy(
        benchmark=BenchmarkSettings(backends=("onnxruntime",), repeats=2, warmup=0, measure_memory=False),
        parity_samples=2,
    ),
    report_samples=1,
)


def at(folder, **changes):
    return dataclasses.replace(RECIPE, output=str(folder), **changes)


def only(folder, kind):
    return [record for record in read(folder) if isinstance(record, kind)]


def test_the_folder_holds_what_is_promised(done):
    folder = done.folder
    files = {path.name for path in folder.iterdir()}
    assert files >= {"recipe.yaml", "records.jsonl", "report.html", "wide.onnx", "narrow.onnx", "narrow", "checkpoints"}
    assert list((folder / "tensorboard" / "narrow").glob("events.*"))
    assert not [name for name in files if "writing" in name or "aside" in name]


def test_the_terminal_shows_stages_epochs_and_where_the_report_is(done):
    lines = done.output.splitlines()
    assert lines[0] == "preparing the data"
    assert [line for line in lines if line.lstrip().startswith("4/4")]
    assert "mIoU" in done.output
    assert lines[-1] == "report: runs/tiny/report.html"


def test_the_records_tell_the_run(done):
    folder = done.folder
    (run,) = only(folder, RunRecord)
    assert (run.name, run.input_shape, run.recipe["train"]["epochs"]) == ("tiny", (1, 3, 16, 32), 4)
    assert [(record.model, record.epoch) for record in only(folder, EpochRecord)] == (
        [(name, epoch) for name in ("wide", "narrow") for epoch in (1, 2, 3, 4)]
    )
    wide, narrow = only(folder, EvaluationRecord)
    assert (wide.model, narrow.model, wide.images) == ("wide", "narrow", 4)
    assert 0.9 * 0.4 * wide.macs < narrow.macs <= 0.4 * wide.macs
    assert all(cut.max_rel_diff <= 1e-5 for cut in only(folder, ShrinkRecord))
    assert {record.model for record in only(folder, ParityRecord) if record.passed} == {"wide", "narrow"}
    assert {record.model for record in only(folder, LatencyRecord)} == {"wide", "narrow"}
    (widths,) = only(folder, WidthsRecord)
    assert sum(widths.learned) < sum(widths.initial)
    assert len(only(folder, SampleRecord)) == 1
    assert all((folder / record.image).is_file() for record in only(folder, SampleRecord))
    assert {record.edit for record in only(folder, EditRecord)} == {"RemoveChannels", "FuseBatchNorm"}


def test_removing_zero_channels_is_checked_in_the_run(done):
    (law,) = only(done.folder, RemovalRecord)
    assert law.removed > 0
    assert law.max_rel_diff < 1e-5


def test_the_narrow_network_loads_and_is_the_one_that_was_evaluated(done):
    folder = done.folder
    model = prunus.load(folder / "narrow", tiny.build)
    assert prunus.trace(model, tiny.example()).macs() == only(folder, EvaluationRecord)[-1].macs


def test_another_recipe_is_refused_and_the_difference_named(done):
    folder = done.folder
    before = (folder / "records.jsonl").read_bytes()
    overrides = ["seed=1", "shrink.budget.macs=0.5", f"output={folder}"]
    with pytest.raises(RecipeError) as error:
        prunus.run(recipe.load(pipeline.Recipe, done.here / "tiny.yaml", overrides))
    assert "`seed` is 0 there, 1 here" in str(error.value)
    assert "`shrink.budget.macs` is 0.4 there, 0.5 here" in str(error.value)
    assert (folder / "records.jsonl").read_bytes() == before


def test_a_folder_that_was_moved_is_still_the_run(done):
    folder = done.folder
    moved = recipe.load(pipeline.Recipe, done.here / "tiny.yaml", ["output=elsewhere"])
    assert prepare_run_folder(folder, recipe.describe(moved))


def test_a_second_run_on_a_folder_in_use_is_refused(tmp_path):
    with lock.lock(tmp_path), pytest.raises(CheckpointError, match="in use by another run"):
        prunus.run(at(tmp_path))
    assert {path.name for path in tmp_path.iterdir()} == {".lock"}


def test_an_attempt_that_failed_early_does_not_occupy_the_folder(tmp_path):
    with pytest.raises(DataError, match="expected there:"):
        prunus.run(at(tmp_path, data=CamVidData(root=tmp_path / "nowhere", size=(16, 32))))
    with pytest.raises(BudgetError, match="the smallest reachable is macs"):
        prunus.run(
            at(tmp_path, shrink=dataclasses.replace(tiny.SHRINK, budget=prunus.Budget(macs=0.001))),
            watch=pipeline.Watch(step=lambda *seen: pytest.fail("trained before the budget was refused")),
        )
    assert len(only(tmp_path, RunRecord)) == 1
    assert prepare_run_folder(tmp_path, recipe.describe(at(tmp_path))) is False


def test_an_encoder_stage_comes_first_and_is_handed_on(tmp_path, monkeypatch):
    began, fit = {}, stages.fit

    def watched(training, model, *arguments):
        began[training.name] = {path: tensor.clone() for path, tensor in model.encoder.state_dict().items()}
        fitted = fit(training, model, *arguments)
        began[training.name, "end"] = fitted.model.encoder.state_dict()
        return fitted

    monkeypatch.setattr(stages, "fit", watched)
    stage = pipeline.EncoderStage(train=dataclasses.replace(tiny.TRAIN, epochs=1))
    prunus.run(at(tmp_path, encoder_stage=stage, baseline=False, train=dataclasses.replace(tiny.TRAIN, epochs=2)))
    for path, tensor in began["narrow"].items():
        assert torch.equal(tensor, began["encoder", "end"][path])
    assert not torch.equal(began["narrow"]["0.weight"], began["encoder"]["0.weight"])
    epochs = only(tmp_path, EpochRecord)
    assert [(record.model, record.epoch) for record in epochs] == [("encoder", 1), ("narrow", 1), ("narrow", 2)]
    assert [record.model for record in only(tmp_path, EvaluationRecord)] == ["narrow"]
    assert not (tmp_path / "wide.onnx").exists()
    assert only(tmp_path, SampleRecord)[0].wide is None


def small_run(folder, **changes):
    """The stages' common object, for a stage alone."""
    chosen = at(folder, **changes)
    task, watch = chosen.task.bind(chosen.data), pipeline.Watch()
    return RunContext(
        recipe=chosen, folder=folder, recorder=Recorder(folder), task=task, inputs=tiny.example(), watch=watch
    )


def test_a_broken_law_fails_the_run_after_it_is_recorded(tmp_path, monkeypatch):
    zeros = {field.name: 0 for field in dataclasses.fields(RemovalRecord)}
    broken = RemovalRecord(**{**zeros, "max_rel_diff": 2e-5})
    monkeypatch.setattr(evaluation, "check_removal", lambda *ignored, **settings: broken)
    with pytest.raises(TrainingError, match=r"changed its output by 2\.00e-05 relative"):
        evaluation.check_removal_law(small_run(tmp_path), tiny.build())
    assert only(tmp_path, RemovalRecord) == [broken]


def test_a_backend_that_is_not_there_is_noted_and_none_at_all_is_an_error(tmp_path, monkeypatch):
    absent = type(backends.find("openvino"))
    monkeypatch.setattr(absent, "absence", lambda self: "it is not installed")
    networks = {"narrow": tiny.build().eval()}
    both = dataclasses.replace(RECIPE.deploy.benchmark, backends=("onnxruntime", "openvino"))
    deployment.deploy(small_run(tmp_path, deploy=dataclasses.replace(RECIPE.deploy, benchmark=both)), networks)
    assert [record.backend for record in only(tmp_path, ParityRecord)] == ["onnxruntime"]
    assert [r for r in only(tmp_path, NoteRecord) if "openvino: it is not installed" in r.text]
    alone = dataclasses.replace(both, backends=("openvino",))
    with pytest.raises(DeployError, match="no backend can check"):
        deployment.deploy(small_run(tmp_path, deploy=dataclasses.replace(RECIPE.deploy, benchmark=alone)), networks)


def test_a_file_whose_outputs_have_another_shape_fails_the_run(tmp_path, monkeypatch):
    def wrong(model, inputs, path):
        return export_onnx(tiny.TinySegmenter(num_classes=3).eval(), inputs, path)

    monkeypatch.setattr(deployment, "export_onnx", wrong)
    with pytest.raises(ParityError):
        deployment.deploy(small_run(tmp_path), {"narrow": tiny.build().eval()})


class NoEncoder(tiny.TinySegmenter):
    """Cannot be trained in two stages."""

    def __init__(self, *, num_classes: int) -> None:
        super().__init__(num_classes=num_classes)


def test_a_model_without_an_encoder_cannot_have_its_stage(tmp_path):
    stage = pipeline.EncoderStage(train=tiny.TRAIN)
    with pytest.raises(RecipeError, match="must take encoder_only=True"):
        prunus.run(at(tmp_path, model=NoEncoder, encoder_stage=stage))


def test_a_failed_parity_fails_the_run_after_it_is_recorded(tmp_path):
    deploy = dataclasses.replace(RECIPE.deploy, parity_tolerance=1e-12)
    with pytest.raises(ParityError):
        prunus.run(at(tmp_path, deploy=deploy, baseline=False, train=dataclasses.replace(tiny.TRAIN, epochs=1)))
    assert [record.passed for record in only(tmp_path, ParityRecord)] == [False]
    assert not (tmp_path / "report.html").exists()


def test_a_model_with_settings_is_written_down(tmp_path):
    model = functools.partial(tiny.TinySegmenter, width=8)
    resolved = recipe.describe(at(tmp_path, model=model))
    assert resolved["model"] == {"class_path": "tiny.TinySegmenter", "init_args": {"width": 8, "encoder_only": False}}


def test_a_line_that_was_cut_short_is_dropped_when_the_run_goes_on(tmp_path):
    recorder = Recorder(tmp_path)
    recorder.write(RemovalRecord(**{f.name: 0 for f in dataclasses.fields(RemovalRecord)}))
    with recorder.path.open("a") as file:
        file.write('{"kind": "epo')
    assert Recorder(tmp_path).count() == 1
    assert json.loads(recorder.path.read_text())["kind"] == "removal"


def test_truncate_keeps_the_first_records(tmp_path):
    recorder = Recorder(tmp_path)
    for removed in range(4):
        recorder.write(RemovalRecord(**{**{f.name: 0 for f in dataclasses.fields(RemovalRecord)}, "removed": removed}))
    recorder.truncate(2)
    assert [record.removed for record in read(tmp_path)] == [0, 1]
    recorder.truncate(9)
    assert recorder.count() == 2
    assert [path.name for path in tmp_path.iterdir()] == ["records.jsonl"]


def test_a_full_disk_is_said_with_what_to_do(tmp_path, monkeypatch):
    recorder = Recorder(tmp_path)

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(RecordError, match=r"records.jsonl cannot be written \(No space left on device\): make room"):
        recorder.write(NoteRecord(text=""))
