"""All reshapings in one recipe: what each stage leaves, that it goes on exactly, and which orders are refused."""

import dataclasses
import inspect
import typing

import pytest
import tiny
from torch import nn

import prunus
from prunus import pipeline, recipe
from prunus.deploy import BenchmarkSettings
from prunus.errors import EditError, RecipeError
from prunus.models.decn import SkippedPair
from prunus.penalties import GroupLasso, NuclearNorm, Orthogonality
from prunus.pipeline import Contract, Decompose, Expand, Factorize, Linearize, Stage, deployment
from prunus.records import EditRecord, EpochRecord, EvaluationRecord, LatencyRecord, ShrinkRecord, WidthsRecord, read
from prunus.tasks.distillation import Distillation

ONE = dataclasses.replace(tiny.TRAIN, epochs=1)
TWO = dataclasses.replace(tiny.TRAIN, epochs=2)
KEPT = Expand(layers="encoder.3.*", rate=2, keep_function=True)

RECIPE = pipeline.Recipe(
    name="tiny",
    data=tiny.DATA,
    model=tiny.TinySegmenter,
    edits=(Decompose(layers="encoder.0", rank=6), KEPT),
    train=TWO,
    penalties=(
        NuclearNorm(strength="auto", share=0.1, when="epoch"),
        GroupLasso(strength="auto", share=0.3, when="epoch"),
    ),
    shrink=None,
    then=(
        Stage(name="contracted", edits=(Contract(),)),
        Stage(name="factorised", edits=(Factorize(layers="encoder.3.*", energy=0.5),)),
        Stage(
            name="shrunk",
            train=TWO,
            shrink=dataclasses.replace(tiny.SHRINK, begin=0.0, end=0.5),
            distillation=Distillation(),
        ),
    ),
    from_scratch=True,
    deploy=pipeline.Deploy(
        benchmark=BenchmarkSettings(backends=("onnxruntime",), repeats=2, warmup=0, measure_memory=False),
        parity_samples=2,
    ),
    report_samples=1,
)
NETWORKS = ["wide", "joint", "contracted", "factorised", "narrow", "scratch-sgd", "scratch-adam"]


def only(folder, kind):
    return [record for record in read(folder) if isinstance(record, kind)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return prunus.run(dataclasses.replace(RECIPE, output=str(tmp_path_factory.mktemp("stages"))))


def test_each_stage_is_recorded(folder):
    found = {record.model: record for record in only(folder, EvaluationRecord)}
    assert list(found) == NETWORKS
    assert {record.model for record in only(folder, LatencyRecord)} == set(NETWORKS)
    assert found["joint"].params > found["contracted"].params > found["narrow"].params
    assert found["contracted"].metrics == pytest.approx(found["joint"].metrics, abs=1e-3)
    for name in ("scratch-sgd", "scratch-adam"):
        assert (found[name].macs, found[name].params) == (found["narrow"].macs, found["narrow"].params)
    trained = [(record.model, record.epochs) for record in only(folder, EpochRecord)]
    assert list(dict.fromkeys(trained)) == [
        ("wide", 2), ("narrow", 2), ("shrunk", 2), ("scratch-sgd", 4), ("scratch-adam", 4),
    ]  # fmt: skip
    assert all(cut.max_rel_diff <= 1e-5 for cut in only(folder, ShrinkRecord))


def test_the_exactness_of_every_edit_is_measured_when_it_is_made(folder):
    edits = only(folder, EditRecord)
    measured = [edit for edit in edits if edit.edit != "RemoveChannels"]  # those: in the shrink records
    assert {edit.edit for edit in measured} == {"Decompose", "Expand", "Contract", "Factorize", "FuseBatchNorm"}
    for edit in measured:
        if edit.exact:
            assert edit.max_rel_diff <= 1e-5 and edit.max_rel_diff_float64 <= 1e-12, edit
        else:
            assert edit.max_rel_diff_float64 > 1e-12, edit
    assert all(edit.max_rel_diff is None for edit in edits if edit.edit == "RemoveChannels")


def test_the_narrow_network_is_replayed_from_the_wide_one(folder):
    model = prunus.load(folder / "narrow", tiny.build)
    narrow = next(record for record in only(folder, EvaluationRecord) if record.model == "narrow")
    assert prunus.trace(model, tiny.example()).macs() == narrow.macs


def test_the_report_shows_the_stages(folder):
    page = (folder / "report.html").read_text(encoding="utf-8")
    rows = page.partition('<section id="stages"')[2].partition("</section>")[0]
    assert [f'data-stage="{name}"' in rows for name in NETWORKS] == [True] * len(NETWORKS)
    assert "narrow, from scratch with Adam" in rows and "ONNX Runtime" in rows


def test_what_a_recipe_says_in_yaml_is_what_python_says(folder):
    again = recipe.load(pipeline.Recipe, folder / "recipe.yaml")
    assert recipe.describe(again) == recipe.describe(dataclasses.replace(RECIPE, output=again.output))
    assert again.then[0].edits[0] == Contract() and again.penalties == RECIPE.penalties


@pytest.mark.parametrize("stop", [12, 22])
def test_an_interrupted_run_goes_on_to_the_same_numbers(folder, tmp_path, monkeypatch, stop):
    monkeypatch.setattr(deployment, "deploy", lambda run, networks: None)  # most of the time
    seen = [0]

    def count(*ignored):
        seen[0] += 1
        if seen[0] == stop:
            raise StopIteration

    chosen = dataclasses.replace(RECIPE, output=str(tmp_path))
    with pytest.raises(StopIteration):
        prunus.run(chosen, watch=pipeline.Watch(step=count))
    prunus.run(chosen)
    figures = [dataclasses.replace(record, training_seconds=0) for record in only(folder, EvaluationRecord)]
    assert [dataclasses.replace(record, training_seconds=0) for record in only(tmp_path, EvaluationRecord)] == figures
    assert only(tmp_path, EditRecord) == only(folder, EditRecord)
    losses = [(record.model, record.epoch, record.loss) for record in only(folder, EpochRecord)]
    assert [(record.model, record.epoch, record.loss) for record in only(tmp_path, EpochRecord)] == losses


ORDERS = {
    "contract what was not expanded": (
        {"edits": (Contract(),)}, EditError, r"stage joint, edits\[0\] \(Contract\): nothing in .* was expanded",
    ),
    "linearize what has no ReLU": (
        {"edits": (KEPT, Linearize())}, EditError,
        r"edits\[1\] \(Linearize\): .* no layer that was expanded with ReLUs",
    ),
    "contract what is not linear": (
        {"edits": (Expand(layers="encoder.3.*", nonlinear=True), Contract())}, EditError, "linearize",
    ),
    "penalise what is not linear": (
        {"edits": (Expand(layers="encoder.3.*", nonlinear=True),), "penalties": (GroupLasso(),)}, EditError,
        "linearize",
    ),
    "factorise a factor": (
        {"edits": (KEPT, Factorize(layers="encoder.3.body.0.factor1", energy=0.9))}, EditError,
        "contract encoder.3.body.0 first",
    ),
    "decompose twice": (
        {"edits": (Decompose(layers="encoder.0", rank=4), Decompose(layers="encoder.0", rank=4))}, EditError,
        r"encoder\.0",
    ),
    "shrink to a budget of what is not deployed": (
        {"edits": (KEPT,), "shrink": tiny.SHRINK}, RecipeError, "the network is expanded here: contract it",
    ),
    "deploy the factors": ({"edits": (KEPT,), "then": ()}, RecipeError, "still expanded at the end"),
    "a pattern of a penalty that matches nothing": (
        {"penalties": (Orthogonality(layers=("decoder.convs*",)),)}, RecipeError, "matches no convolution",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("changes", "kind", "reason"), ORDERS.values(), ids=ORDERS)
def test_an_order_that_makes_no_sense_is_refused_before_anything_is_trained(tmp_path, changes, kind, reason):
    watch = pipeline.Watch(step=lambda *seen: pytest.fail("trained before the order was refused"))
    plain = {"edits": (), "penalties": (), "then": (), "from_scratch": False}
    with pytest.raises(kind, match=reason):
        prunus.run(dataclasses.replace(RECIPE, output=str(tmp_path), **(plain | changes)), watch=watch)


def test_a_nonlinear_stage_starts_the_linear_one(tmp_path):
    then = (Stage(name="linear", edits=(Linearize(),), train=ONE), Stage(name="one", edits=(Contract(),)))
    wide = (Expand(layers="encoder.3.*", rate=2, nonlinear=True),)
    chosen = dataclasses.replace(
        RECIPE, output=str(tmp_path), edits=wide, penalties=(), train=ONE, then=then, baseline=False, from_scratch=False
    )
    found = {record.model: record for record in only(prunus.run(chosen), EvaluationRecord)}
    assert list(found) == ["joint", "linear", "narrow"]
    assert found["linear"].params == found["joint"].params
    assert found["narrow"].params == prunus.trace(tiny.build(), tiny.example()).params()
    assert found["narrow"].metrics == pytest.approx(found["linear"].metrics, abs=1e-3)


def test_what_makes_no_recipe_is_refused():
    with pytest.raises(RecipeError, match="two stages are called joint"):
        dataclasses.replace(RECIPE, then=(Stage(name="joint"),))
    with pytest.raises(RecipeError, match="baseline: true"):
        dataclasses.replace(RECIPE, baseline=False)
    with pytest.raises(RecipeError, match="a stage's name is lower-case"):
        Stage(name="narrow")
    with pytest.raises(RecipeError, match="give `train`"):
        Stage(name="rest", penalties=(GroupLasso(),))


@pytest.mark.parametrize("settings", [Decompose, Factorize, Expand, Linearize, Contract])
def test_settings_are_the_arguments_of_the_functions_that_plan(settings):
    planner = getattr(prunus, settings.__name__.lower())
    _, *arguments = inspect.signature(planner).parameters.values()
    hints = typing.get_type_hints(planner)
    expected = [(argument.name, argument.default, hints[argument.name]) for argument in arguments]
    hints = typing.get_type_hints(settings)
    assert [(field.name, field.default, hints[field.name]) for field in dataclasses.fields(settings)] == expected


class Deep(tiny.TinySegmenter):
    """A network with a skip layer whose units are zero from the start, so that no gradient reaches them."""

    def __init__(self, *, num_classes: int) -> None:
        super().__init__(num_classes=num_classes)
        self.encoder.append(SkippedPair(16))
        for parameter in self.encoder[-1].pair.vertical.parameters():
            nn.init.zeros_(parameter)


def test_a_layer_without_living_units_vanishes_after_the_training(tmp_path):
    chosen = dataclasses.replace(
        RECIPE,
        output=str(tmp_path),
        model=Deep,
        edits=(),
        penalties=(),
        then=(),
        train=ONE,
        baseline=False,
        from_scratch=False,
    )
    prunus.run(chosen)
    edits = [edit for edit in only(tmp_path, EditRecord) if edit.edit == "Bypass"]
    assert len(edits) == 1 and "encoder.4" in edits[0].summary and edits[0].max_rel_diff_float64 <= 1e-12
    widths = only(tmp_path, WidthsRecord)[0]
    learned = dict(zip(widths.layers, widths.learned, strict=True))
    assert learned["encoder.4.pair.vertical"] == 0
    narrow = prunus.load(tmp_path / "narrow", lambda: Deep(num_classes=len(tiny.DATA.class_names)))
    assert not any(isinstance(module, SkippedPair) for module in narrow.modules())
