import dataclasses
import json
import math

import plotly.graph_objects
import pytest

from prunus import records
from prunus.report import plots
from prunus.report.facts import gather
from prunus.report.html import figures


def test_every_figure_is_one_that_plotly_knows(make, tmp_path):
    found = figures(gather(make.complete_run(tmp_path)))
    assert set(found) == {"curve-0", "widths", "macs", "channels", "metric", "seconds", "classes", "latency"}
    for figure in found.values():
        plotly.graph_objects.Figure(figure)  # raises on a property that plotly does not have


def test_widths_show_every_layer_as_built_and_learned(make):
    record = make.widths_record()
    wide, narrow = plots.widths(record)["data"]
    assert tuple(wide["y"]) == record.initial
    assert tuple(narrow["y"]) == record.learned


def test_what_is_not_finite_leaves_a_gap(make):
    epochs = [make.epoch_record("wide", epoch) for epoch in (1, 2)]
    epochs[1] = dataclasses.replace(epochs[1], seconds=math.nan)
    figure = plots.by_epoch({"wide": epochs}, "seconds")
    assert figure["data"][0]["y"] == [epochs[0].seconds, None]
    json.dumps(figure, allow_nan=False)


def test_the_narrow_line_goes_through_all_stages_and_leaves_others_out(make):
    names = ("wide", "narrow", "shrunk", "encoder", "scratch-sgd", "scratch-adamw")
    epochs = {name: [make.epoch_record(name, epoch) for epoch in range(1, make.EPOCHS + 1)] for name in names}
    wide, narrow = plots.by_epoch(epochs, "macs")["data"]
    assert wide["x"] == list(range(1, make.EPOCHS + 1))
    assert narrow["x"] == list(range(1, 2 * make.EPOCHS + 1))
    assert narrow["y"] == [record.macs for name in ("narrow", "shrunk") for record in epochs[name]]


def test_cuts_of_two_trainings_after_the_same_epoch_are_both_kept(make, tmp_path):
    found = make.complete_run(tmp_path)
    cuts = [record for record in found if isinstance(record, records.ShrinkRecord)]
    later = [dataclasses.replace(record, model="shrunk") for record in cuts]
    assert gather([*found, *later, later[0]]).shrinks == (*cuts, *later)


def test_the_budget_is_drawn_over_all_epochs_planned(make, tmp_path):
    found = figures(gather(make.complete_run(tmp_path)))
    lines = {trace["meta"]["role"]: trace for trace in found["macs"]["data"]}
    assert lines["budget"]["y"] == pytest.approx([0.4 * make.MACS] * 2)
    assert lines["budget"]["x"] == [1, make.EPOCHS]
    assert "budget" not in {trace["meta"]["role"] for trace in found["channels"]["data"]}


def test_a_whisker_ends_at_p95(make):
    record = make.latency_record("narrow", "torch", 20.0)
    (bars,) = plots.latency([("PyTorch", {"narrow": record})])["data"]
    assert bars["y"][0] + bars["error_y"]["array"][0] == pytest.approx(record.p95_ms)


def test_labels_are_no_markup_and_keep_the_end_that_tells_layers_apart():
    record = records.WidthsRecord(
        layers=("<b>x</b>", "encoder.stage2.7.conv3x1_1.projection"), initial=(4, 4), learned=(1, 2)
    )
    figure = plots.widths(record)
    first, second = figure["layout"]["xaxis"]["ticktext"]
    assert first == "&lt;b&gt;x&lt;/b&gt;"
    assert second == "….7.conv3x1_1.projection" and len(second) == plots.LABEL_LENGTH
    assert figure["data"][0]["customdata"][1][0] == "encoder.stage2.7.conv3x1_1.projection"


def test_a_backend_is_named_on_short_lines():
    assert plots.wrapped("ONNX Runtime, 2 threads") == "ONNX<br>Runtime<br>2 threads"
