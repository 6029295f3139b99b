"""A recipe whose budget is in milliseconds: measured on its backend, refused early, told in the report."""

import json
import math

import pytest
import tiny
import torch

import prunus
from prunus.deploy import BenchmarkSettings, LatencyMeter, kit_script
from prunus.deploy.kit import write_kit
from prunus.deploy.measured_kit import read_kit
from prunus.errors import BudgetError, DeployError, RecipeError
from prunus.records import EpochRecord, LatencyRecord, NoteRecord, ShrinkRecord, read
from prunus.report import headline
from prunus.report.facts import gather

BUDGET = "shrink: {begin: 0.25, end: 0.75, budget: {macs: null, %s}}\n"


def recipe(folder, bound):
    path = tiny.write_recipe(folder)
    path.write_text(path.read_text() + BUDGET % bound)
    return path


@pytest.mark.parametrize("backend", ["onnxruntime", "torch"])
def test_the_meter_tells_wide_from_narrow(backend):
    settings = BenchmarkSettings(backends=(backend,), repeats=9, warmup=2)
    image = torch.randn(1, 3, 64, 128)
    meter = LatencyMeter(tiny.build(width=64), image, settings)
    wide, narrow = meter(tiny.build(width=64)), meter(tiny.build(width=4))
    assert wide > 2 * narrow > 0


def test_a_budget_that_is_met_already_cuts_nothing(tmp_path):
    folder = prunus.run(recipe(tmp_path, "latency_ms: 100000"), [f"output={tmp_path / 'run'}"])
    records = read(folder)
    assert not [record for record in records if isinstance(record, ShrinkRecord)]
    notes = [record.text for record in records if isinstance(record, NoteRecord) and "ms" in record.text]
    assert len(notes) == 2 and all("where 100,000.000 ms are allowed" in note for note in notes)
    page = (folder / "report.html").read_text()
    assert "Budget: latency, ONNX Runtime" in page
    goal = headline.checks(gather(records))[0]
    assert goal.passed and goal.text.startswith("met: ") and "within" in goal.text


@pytest.mark.slow  # a run of its own on a real runtime; the one steered by a model, below, is not slow
def test_a_share_is_met_or_missed_by_what_the_files_take(tmp_path):
    wide = ["model.width=48", "baseline=true", "deploy.benchmark.repeats=9"]
    folder = prunus.run(recipe(tmp_path, "latency: 0.7"), [f"output={tmp_path / 'run'}", *wide])
    epochs = [record for record in read(folder) if isinstance(record, EpochRecord) and record.model == "narrow"]
    assert epochs[-1].macs < epochs[0].macs
    assert "(70 % of the wide network)" in (folder / "report.html").read_text().replace("\u202f", " ").replace(
        "\xa0", " "
    )


def test_what_no_network_meets_is_refused_before_anything_is_trained(tmp_path):
    with pytest.raises(BudgetError, match=r"latency <= 1e-05 ms\) cannot be met"):
        prunus.run(recipe(tmp_path, "latency_ms: 0.00001"), [f"output={tmp_path / 'run'}"])
    assert not [record for record in read(tmp_path / "run") if isinstance(record, EpochRecord)]


def test_a_recipe_names_its_target(tmp_path):
    path = recipe(tmp_path, "latency_ms: 100000")
    path.write_text(path.read_text() + "target: {backend: onnxruntime, threads: 2}\n")
    folder = prunus.run(path, [f"output={tmp_path / 'run'}", "baseline=false"])
    threads = [record.threads for record in read(folder) if isinstance(record, LatencyRecord)]
    assert threads == [2, 1]  # the target, then what deploy.benchmark names
    with pytest.raises(RecipeError, match=r"resolution=64x64 is for another resolution than that of the data, 16x32"):
        prunus.run(path, [f"output={tmp_path / 'other'}", "target.resolution=[64, 64]"])
    with pytest.raises(RecipeError, match="onnxrutime"):
        prunus.run(path, [f"output={tmp_path / 'other'}", "target.backend=onnxrutime"])


def test_the_exact_solver_steers_a_run_by_a_model_of_its_target(tmp_path):
    path = recipe(tmp_path, "latency_ms: 100000, solver: exact")
    table = tmp_path / "units.json"
    changes = [f"output={tmp_path / 'run'}", "baseline=false", f"target.table={table}"]
    notes = [record.text for record in read(prunus.run(path, changes)) if isinstance(record, NoteRecord)]
    assert len(notes) == 2 and all("nothing has to be removed" in note for note in notes)
    assert json.loads(table.read_text())["units"]


def test_a_run_shrinks_to_the_milliseconds_of_a_machine_that_is_elsewhere(tmp_path):
    """Its kit was measured there; here the milliseconds are made up, so that the run is the same each time."""
    model, image = tiny.build().eval(), tiny.example()
    kit = write_kit(tmp_path / "kit", model, prunus.trace(model, image), (image,), prunus.Target())
    items = json.loads((kit / "kit.json").read_text())["items"]
    macs = {item["file"]: math.prod(item["sizes"]) if "sizes" in item else 3000 / 2**i for i, item in enumerate(items)}
    networks = iter((1.0, 0.55, 0.3, 0.16, 0.7, 0.3))  # from wide to narrow, then off the steps
    taken = {name: next(networks) if name.startswith("network") else 1e-4 * macs[name] for name in macs}
    content = {
        "format": kit_script.FORMAT,
        "kit": json.loads((kit / "kit.json").read_text())["id"],
        "machine": {"version": "9", "processor": "Abacus 3", "threads": 1, "precision": "fp32"},
        "items": {name: {"ms": ms, "reference_ms": 1.0, "spread": 1.0} for name, ms in taken.items()},
    }
    (kit / "measured.json").write_text(json.dumps(content))
    read_kit(kit, tmp_path / "there.json").table.save()
    path = recipe(tmp_path, "latency: 0.6, solver: exact")
    path.write_text(path.read_text() + f"target: {{table: {tmp_path / 'there.json'}, remote: true}}\n")
    folder = prunus.run(path, [f"output={tmp_path / 'run'}", "baseline=false"])
    records = read(folder)
    notes = [record.text for record in records if isinstance(record, NoteRecord)]
    assert sum("predicted where" in note and "another machine" in note for note in notes) == 2
    cuts = [record for record in records if isinstance(record, ShrinkRecord)]
    assert cuts and cuts[-1].macs_after < cuts[0].macs_before
    with pytest.raises(DeployError, match="nothing can be measured from here"):
        prunus.run(path, [f"output={tmp_path / 'greedy'}", "baseline=false", "shrink.budget.solver=greedy"])
