"""Files and settings that somebody made to do harm: a typed error in bounded memory and time, or they make sense."""

import contextlib
import copy
import dataclasses
import functools
import io
import json
import resource
import tarfile
import time
import typing

import nets
import numpy as np
import pytest
import tiny
import torch
from box_trees import write_coco, write_kitti, write_voc
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import nn

import prunus
from prunus import pipeline, recipe, storage
from prunus.data import COCOData, KITTIData, ShardsData, VOCData
from prunus.data.annotations import OnBadBox
from prunus.errors import BudgetError, CheckpointError, DataError, EditError, PrunusError, RecipeError
from prunus.penalties.zeros import zero_
from prunus.surgery.save import MANIFEST, PLAN, WEIGHTS
from prunus.train import checkpoint
from prunus.train.begin import begin
from prunus.train.fit import fit

SECONDS, GIGABYTE = 5.0, 2**20  # of one file; kilobytes, as getrusage tells them

ON_BAD_BOX = typing.get_args(OnBadBox)
CASES = [10, pytest.param(2000, marks=[pytest.mark.slow, pytest.mark.timeout(3500)])]
NUMBERS = [
    -1,
    0,
    1,
    2,
    7,
    255,
    2**31,
    2**62,
    2**63,
    10**25,
    10**60,
    -(2**63),
    0.5,
    -0.0,
    1e300,
    float("nan"),
    float("inf"),
]
TEXTS = [
    "",
    " ",
    "x",
    "..",
    "a.b",
    "/",
    "\0",
    "\ud800",
    "é",
    "1",
    "é" * 1000,
    "0b_",
    "2001-99-99",
    "=",
    "[" * 1000,
    "..:",
]
VALUES = st.sampled_from([*NUMBERS, *TEXTS, None, True, False, [], {}, [[]], {"a": 1}, [1, 2, 3], ["x"], [0.5, None]])


def law(cases, check):
    """Check `cases` examples: `check` draws its own data; each takes little time and memory."""

    def timed(data):
        before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
        check(data)
        assert time.process_time() - began < SECONDS
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < GIGABYTE

    silent = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example]
    settings(max_examples=cases, deadline=None, database=None, suppress_health_check=silent)(given(st.data())(timed))()


def places(data, path=()):
    """Yield the path of every value in JSON."""
    yield path
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, item in items:
        yield from places(item, (*path, key))


def crafted(data, written):
    """Return JSON like `written` with one to three values replaced, left out, or written twice."""
    result = copy.deepcopy(written)
    for _ in range(data.draw(st.integers(1, 3))):
        every = list(places(result))[1:]
        if not every:
            return result
        path = data.draw(st.sampled_from(every))
        where = functools.reduce(lambda value, key: value[key], path[:-1], result)
        kind = data.draw(st.sampled_from(["value", "value", "value", "gone", "twice", "elsewhere"]))
        if kind == "gone":
            del where[path[-1]]
        elif kind == "twice" and isinstance(where, list):
            where.insert(path[-1], copy.deepcopy(where[path[-1]]))
        elif kind == "elsewhere":
            other = functools.reduce(lambda value, key: value[key], data.draw(st.sampled_from(every)), result)
            where[path[-1]] = copy.deepcopy(other)
        else:
            where[path[-1]] = copy.deepcopy(data.draw(VALUES))
    return result


# ---------------------------------------------------------------- plans


class Network(nn.Module):
    """Something for each kind of edit."""

    def __init__(self):
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.block = tiny.Residual(8)
        self.last = nn.Conv2d(8, 4, 5)

    def forward(self, images):
        return self.last(self.block(self.first(images)))


@functools.cache
def planned():
    """Return networks with plans that fit them."""
    torch.manual_seed(0)
    model, inputs = Network().eval(), torch.randn(1, 3, 12, 12)
    expanded = prunus.expand(model, "*", 4, keep_function=True)
    wide = prunus.apply(expanded, model)
    ranked = prunus.factorize(model, rank=2)
    loose = prunus.apply(prunus.expand(model, "first.0", 4, nonlinear=True), model)
    attention, tokens = nets.CASES["attention"].model(), nets.CASES["attention"].inputs()
    groups = prunus.trace(attention, tokens)
    chosen = groups.exact.clone()
    chosen[groups.exact.nonzero().flatten()[::2]] = False
    zero_(attention, groups, chosen)
    emptied = copy.deepcopy(model)
    nn.init.zeros_(emptied.block.body[3].weight)
    found = [
        (model, expanded + prunus.contract(wide)),
        (model, prunus.decompose(model, "k>1", width=4, nonlinear=True)),
        (model, ranked + prunus.fuse(prunus.apply(ranked, model), inputs)),
        (loose, prunus.linearize(loose)),
        (attention, prunus.select(attention, groups)),
        (emptied, prunus.bypass(emptied, inputs)),
    ]
    assert all(plan for _, plan in found)
    return [(model, json.loads(plan.to_json())) for model, plan in found]


@pytest.mark.parametrize("cases", CASES)
def test_a_crafted_plan_is_refused_or_done(cases):
    def check(data):
        model, written = data.draw(st.sampled_from(planned()))
        before = nets.state(model)
        with contextlib.suppress(EditError):
            prunus.apply(prunus.Plan.from_json(json.dumps(crafted(data, written))), model)
        nets.assert_same_state(before, nets.state(model))

    law(cases, check)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"widths": [200_000, 200_000]}, "would make .* of a network that has"),
        ({"widths": [2**62, 1]}, "would make"),
        ({"widths": [10**30, 1]}, "beyond 64 bits"),
        (
            {"layer": {"path": "first.0", "kind": "Conv2d", "shape": [8, 2**40, 3, 3], "groups": 1}},
            "would make|has shape",
        ),
    ],
)
def test_sizes_are_compared_with_the_network_before_memory_is_taken(change, message):
    model, written = planned()[0]
    written = {"format": 1, "edits": [{**written["edits"][0], **change}]}
    began = time.process_time()
    with pytest.raises(EditError, match=message):
        prunus.apply(prunus.Plan.from_json(json.dumps(written)), model)
    assert time.process_time() - began < SECONDS


def test_more_edits_than_any_network_needs_are_refused():
    model, written = planned()[0]
    linear = {"edit": "Linearize", "path": "first.0"}
    with pytest.raises(EditError, match="20,000 edits"):
        prunus.apply(prunus.Plan.from_json(json.dumps({**written, "edits": [linear] * 20_000})), model)


@pytest.mark.parametrize(
    ("name", "before", "after", "path"),
    [
        ("stride", 1, 2, "first.0"),
        ("_version", 2, 1, "first.1"),
        ("num_features", 8, 4, "first.1"),
        ("training", 1, 0, ""),
        ("dilation", 2, 1, ""),
        ("calls", 9, 8, ""),  # which no code of the network reads
        ("width", 8, 2, ""),  # more than the plan removes
        ("width", 8, 7, ""),  # fewer
        ("width", 8, 9, ""),
        ("repeats", 6, 3, ""),  # read by the code, but no dimension that is cut leaves 3 of 6
        ("repeats", 16, 14, ""),  # wider than any tensor that is cut
    ],
)
def test_a_plan_sets_nothing_but_numbers_of_channels(name, before, after, path):
    class Reads(Network):
        def forward(self, images):
            return super().forward(images).reshape(-1, self.width, self.dilation, self.repeats)

    model = Reads()
    model.dilation, model.width, model.calls, model.repeats = 2, 8, 9, 16 if before == 16 else 6
    cut = {"path": "first.0.weight", "dim": 0, "size": 8, "remove": [0, 1]}
    attribute = {"path": path, "name": name, "item": -1, "before": before, "after": after}
    text = json.dumps({"format": 1, "edits": [{"edit": "RemoveChannels", "cuts": [cut], "attributes": [attribute]}]})
    with pytest.raises(EditError, match=name):
        prunus.apply(prunus.Plan.from_json(text), model)


class TwoInOne(nn.Module):
    """A size that counts the channels of two layers."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 1), nn.Conv2d(3, 6, 1)
        self.third, self.fourth = nn.Conv2d(8, 4, 1), nn.Conv2d(6, 4, 1)
        self.both, self.parts = 14, [8, 6]

    def forward(self, images):
        both = torch.cat([self.first(images), self.second(images)], 1).view(-1, self.both, 5, 5)
        first, second = both.split(self.parts, 1)
        return self.third(first) + self.fourth(second)


def test_a_number_that_counts_the_channels_of_two_layers_follows_both_and_no_other_cut():
    model, images = TwoInOne().eval(), torch.randn(2, 3, 5, 5)
    groups = prunus.trace(model, images)
    zero_(model, groups, groups.exact & (torch.arange(len(groups)) % 2 == 0))
    plan = prunus.Plan.from_json(prunus.select(model, groups).to_json())
    small = prunus.apply(plan, model)
    assert 2 <= small.both == sum(small.parts) < 14
    torch.testing.assert_close(small(images), model(images))
    edit = plan.edits[0]
    number = next(one for one in edit.attributes if one.name == "both")
    taken = (dataclasses.replace(number.taken[0], remove=(1, *number.taken[0].remove[1:])), *number.taken[1:])
    for wrong in ((), number.taken[:1], taken):
        changed = tuple(dataclasses.replace(one, taken=wrong) if one == number else one for one in edit.attributes)
        with pytest.raises(EditError, match="both would become"):
            prunus.apply(dataclasses.replace(edit, attributes=changed), model)


def test_what_a_plan_sets_is_in_its_summary():
    _, written = planned()[4]
    plan = prunus.Plan.from_json(json.dumps(written))
    assert plan.edits[0].attributes
    for one in plan.edits[0].attributes:
        assert f"{one.name} {one.before} -> {one.after}" in plan.summary()


# ---------------------------------------------------------------- recipes, overrides, budgets


@functools.cache
def keys():
    """Return the dotted path of every key of a whole recipe."""
    written = recipe.describe(recipe.build(pipeline.Recipe, minimal()))
    return [".".join(str(key) for key in path) for path in places(written) if path]


def minimal():
    return {
        "name": "tiny",
        "data": {"class_path": "prunus.data.StreetData", "init_args": {"size": [16, 32], "num_train": 4}},
        "model": {"class_path": "tiny.TinySegmenter"},
    }


@pytest.mark.parametrize("cases", CASES)
def test_a_crafted_override_is_refused_or_taken(cases, tmp_path):
    path = tiny.write_recipe(tmp_path)

    def check(data):
        value = data.draw(VALUES | st.text(max_size=20) | st.sampled_from(TEXTS))
        text = value if isinstance(value, str) else json.dumps(value)
        key = data.draw(st.sampled_from(keys()) | st.text(max_size=9))
        with contextlib.suppress(PrunusError):
            recipe.resolve(pipeline.Recipe, path, [f"{key}={text}"])
            recipe.load(pipeline.Recipe, path, [f"{key}={text}"])

    law(cases, check)


@pytest.mark.parametrize("cases", CASES)
def test_a_crafted_recipe_is_refused_or_taken(cases, tmp_path):
    whole = recipe.describe(recipe.build(pipeline.Recipe, minimal()))

    def check(data):
        path = tmp_path / "crafted.yaml"
        text = json.dumps(crafted(data, whole), ensure_ascii=True)  # JSON is YAML
        cut = data.draw(st.integers(0, len(text)) | st.none())
        path.write_text(
            text if cut is None else text[:cut] + data.draw(st.sampled_from(TEXTS[:-5])) + text[cut:], errors="replace"
        )
        with contextlib.suppress(PrunusError):
            recipe.load(pipeline.Recipe, path)

    law(cases, check)


@pytest.mark.parametrize("cases", CASES)
def test_a_crafted_budget_is_refused_or_taken(cases):
    model = nets.CASES["residual"].model()
    groups = prunus.trace(model, nets.CASES["residual"].inputs())
    names = [field.name for field in dataclasses.fields(prunus.Budget)]

    def check(data):
        given_ = data.draw(st.dictionaries(st.sampled_from(names), VALUES, max_size=4))
        with contextlib.suppress(BudgetError, RecipeError):  # `keep` is a recipe's key as well
            prunus.select(model, groups, budget=prunus.Budget(**given_))

    law(cases, check)


# ---------------------------------------------------------------- checkpoints


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    settings = {"epochs": 3, "ema_decay": 0.9}
    fit(tiny.training(folder, **settings), tiny.build(), tiny.example(), tiny.SHRINK)
    return tiny.training(folder, **settings)


@pytest.mark.parametrize("cases", CASES)
def test_a_crafted_checkpoint_is_refused_or_gone_on_from(cases, trained):
    newest = checkpoint.latest(trained.checkpoints)
    written = json.loads((newest.path / checkpoint.STATE).read_text())
    plan = json.loads(written["plan"])
    draws = written["tree"]  # 625 numbers of a random generator would be nearly all that is drawn

    def check(data):
        state = {**written, "plan": plan, "tree": draws}
        state = crafted(data, state if data.draw(st.booleans()) else {**state, "tree": None}) or {}
        if isinstance(state, dict):
            state["plan"] = json.dumps(state["plan"]) if isinstance(state.get("plan"), dict) else state.get("plan")
            state["tree"] = crafted(data, [draws])[0:1] if state.get("tree") is None else state["tree"]
            state["tree"] = state["tree"][0] if isinstance(state["tree"], list) and state["tree"] else state["tree"]
        seal(newest.path, state)
        try:
            begin(trained, tiny.build(), tiny.example(), 4, tiny.SHRINK)
        except CheckpointError as error:
            assert str(trained.checkpoints) in str(error) or "structure" in str(error)

    law(cases, check)


def seal(path, state):
    """Write a checkpoint's state anew, its digests with it."""
    (path / checkpoint.STATE).write_text(json.dumps(state))
    manifest = json.loads((path / checkpoint.MANIFEST).read_text())
    manifest.pop(storage.SEAL)
    described = {"bytes": (path / checkpoint.STATE).stat().st_size, "sha256": storage.sha256(path / checkpoint.STATE)}
    manifest["files"][checkpoint.STATE] = described
    (path / checkpoint.MANIFEST).write_text(storage.sealed(manifest))


def tampered(data, content):
    """Return bytes with a few of the first thousand changed, or cut short: of safetensors its header, which is JSON."""
    changed = bytearray(content)
    for _ in range(data.draw(st.integers(1, 4))):
        changed[data.draw(st.integers(0, min(1000, len(changed) - 1)))] = data.draw(st.integers(0, 255))
    return bytes(changed[: data.draw(st.integers(0, len(changed)) | st.just(len(changed)))])


@pytest.mark.parametrize("cases", CASES)
def test_a_crafted_folder_of_a_network_is_refused_or_loaded(cases, tmp_path):
    saved = []
    for number, (model, written) in enumerate(planned()):
        plan = prunus.Plan.from_json(json.dumps(written))
        prunus.save(tmp_path / str(number), prunus.apply(plan, model), plan)
        files = {file.name: file.read_bytes() for file in (tmp_path / str(number)).iterdir()}
        saved.append((functools.partial(copy.deepcopy, model), tmp_path / str(number), files))

    def check(data):
        build, folder, files = data.draw(st.sampled_from(saved))
        manifest = storage.unsealed(files[MANIFEST].decode())
        kind = data.draw(st.sampled_from(["manifest", "plan", "weights"]))
        now = dict(files)
        if kind == "plan":
            now[PLAN] = json.dumps(crafted(data, json.loads(files[PLAN]))).encode()
        elif kind == "weights":
            now[WEIGHTS] = tampered(data, files[WEIGHTS])
        for name in (PLAN, WEIGHTS):
            (folder / name).write_bytes(now[name])
            manifest["files"][name] = storage.sha256(folder / name)
        manifest = crafted(data, manifest) if kind == "manifest" else manifest
        (folder / MANIFEST).write_text(storage.sealed(manifest) if isinstance(manifest, dict) else json.dumps(manifest))
        with contextlib.suppress(EditError):
            prunus.load(folder, build)

    law(cases, check)


@pytest.mark.parametrize("cases", CASES)
def test_a_crafted_manifest_or_tensor_file_of_a_checkpoint_is_refused(cases, trained):
    newest = checkpoint.latest(trained.checkpoints)
    tensors, written = newest.path / checkpoint.TENSORS, (newest.path / checkpoint.MANIFEST).read_text()
    content, state = tensors.read_bytes(), (newest.path / checkpoint.STATE).read_bytes()

    def check(data):
        (newest.path / checkpoint.STATE).write_bytes(state)
        manifest = storage.unsealed(written)
        if data.draw(st.booleans()):
            tensors.write_bytes(tampered(data, content))
            manifest["files"][checkpoint.TENSORS] = {
                "bytes": tensors.stat().st_size,
                "sha256": storage.sha256(tensors),
            }
        else:
            tensors.write_bytes(content)
            manifest = crafted(data, manifest)
        sealed = storage.sealed(manifest) if isinstance(manifest, dict) else json.dumps(manifest)
        (newest.path / checkpoint.MANIFEST).write_text(sealed)
        with contextlib.suppress(CheckpointError):
            if (
                checkpoint.latest(trained.checkpoints).path == newest.path
            ):  # else the one before is taken, which is whole
                begin(trained, tiny.build(), tiny.example(), 4, tiny.SHRINK)

    law(cases, check)


# ---------------------------------------------------------------- shards


@pytest.fixture(scope="module")
def shard(tmp_path_factory):
    """Return a folder of one shard and its bytes."""
    folder = tmp_path_factory.mktemp("shards")
    with tarfile.open(folder / "train-000000.tar", "w") as archive:
        for number in range(4):
            picture = io.BytesIO()
            Image.fromarray(np.full((9, 9, 3), 40 * number, np.uint8)).save(picture, "PNG")
            for name, content in ((f"{number}.png", picture.getvalue()), (f"{number}.cls", b"%d" % (number % 2))):
                info = tarfile.TarInfo(name)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    (folder / "classes.json").write_text('["a", "b"]')
    return folder, (folder / "train-000000.tar").read_bytes()


def split(folder):
    return ShardsData(root=folder, size=(8, 8)).train()


@pytest.mark.parametrize("cases", CASES)
def test_a_crafted_shard_or_index_is_refused_or_read(cases, shard):
    folder, content = shard
    tar, beside, classes = folder / "train-000000.tar", folder / "train-000000.json", folder / "classes.json"

    def check(data):
        beside.unlink(missing_ok=True)
        classes.write_text('["a", "b"]')
        tar.write_bytes(content)
        kind = data.draw(st.sampled_from(["index", "tar", "classes"]))
        if kind == "index":
            split(folder)
            beside.write_text(json.dumps(crafted(data, {**json.loads(beside.read_text())})))
        elif kind == "classes":
            classes.write_text(json.dumps(data.draw(VALUES)))
        else:
            changed = bytearray(content)
            for _ in range(data.draw(st.integers(1, 6))):
                changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
            tar.write_bytes(changed[: data.draw(st.integers(0, len(changed)) | st.just(len(changed)))])
        with contextlib.suppress(DataError):
            found = split(folder)
            for number in range(len(found)):
                found[number]

    law(cases, check)


# ---------------------------------------------------------------- annotations of boxes


@pytest.mark.parametrize("cases", CASES)
def test_crafted_annotations_are_refused_or_read(cases, tmp_path):
    boxes = [{"image_id": 10, "category_id": 7, "bbox": [1, 2, 10, 5], "iscrowd": 0}]
    roots = {
        "voc": write_voc(tmp_path / "voc", [("stop", 0, 0, 40, 20), ("light", 1, 2, 11, 12)]),
        "kitti": write_kitti(tmp_path / "kitti"),
        "coco": write_coco(tmp_path / "coco", boxes).root,
    }
    kinds = {"voc": VOCData, "kitti": KITTIData, "coco": COCOData}
    files = {name: sorted(path for path in root.rglob("*") if path.suffix in (".xml", ".txt", ".json"))
             for name, root in roots.items()}  # fmt: skip
    contents = {path: path.read_bytes() for paths in files.values() for path in paths}

    def check(data):
        name = data.draw(st.sampled_from(sorted(roots)))
        path = data.draw(st.sampled_from(files[name]))
        content = contents[path]
        if path.suffix == ".json" and data.draw(st.booleans()):
            path.write_text(json.dumps(crafted(data, json.loads(content))))
        elif data.draw(st.booleans()):
            words = content.split(b" ")
            text = data.draw(st.sampled_from([*map(str, NUMBERS), *TEXTS]))
            words[data.draw(st.integers(0, len(words) - 1))] = text.encode("utf-8", "surrogatepass")
            path.write_bytes(b" ".join(words))
        else:
            path.write_bytes(tampered(data, content))
        try:
            with contextlib.suppress(DataError):
                made = kinds[name](root=roots[name], size=(20, 40), on_bad_box=data.draw(st.sampled_from(ON_BAD_BOX)))
                for split in (made.train(), made.validation(), made.test()):
                    for number in range(len(split)):
                        split[number]
        finally:
            path.write_bytes(content)

    law(cases, check)
