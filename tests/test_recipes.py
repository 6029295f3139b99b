"""Every recipe that comes with Prunus loads, says what it is, and trains on a tiny tree or tiny scenes."""

import dataclasses
import importlib.resources
import tarfile
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from PIL import Image

from prunus import pipeline, recipe
from prunus.backends.signature import named_outputs
from prunus.budget import Budget
from prunus.data import CIFAR10Data
from prunus.pipeline import stages
from prunus.pipeline.context import RunContext
from prunus.pipeline.network import Network
from prunus.pipeline.rehearsal import rehearse
from prunus.records import EditRecord, EpochRecord, EvaluationRecord, LatencyRecord, Recorder, read

RECIPES = sorted((Path(__file__).parents[1] / "recipes").glob("*.yaml"))
SMALL = ["data.size=[32, 64]", "train.batch_size=2", "train.num_workers=0", "train.device=cpu"]
SMALL += ["train.epochs=1", "train.warmup_epochs=1"]
STREET = ["data.num_train=4", "data.num_validation=2", "data.num_test=2"]


def write_pair(image, mask, num_values):
    """Write noise as an image and all values as a mask, 64 x 32."""
    for path in (image, mask):
        path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 64, 3), np.uint8)).save(image)
    Image.fromarray((np.arange(32 * 64).reshape(32, 64) // 8 % num_values).astype(np.uint8)).save(mask)


def camvid(root):
    for split in ("train", "val", "test"):
        names = [(f"{split}/{i}.png", f"{split}annot/{i}.png") for i in range(2)]
        for image, mask in names:
            write_pair(root / image, root / mask, 12)
        (root / f"{split}.txt").write_text("".join(f"{image} {mask}\n" for image, mask in names))


def cityscapes(root):
    for split, city in (("train", "ulm"), ("train", "jena"), ("val", "bonn")):
        stem = f"{city}_000000_000001"
        mask = root / "gtFine" / split / city / f"{stem}_gtFine_labelIds.png"
        write_pair(root / "leftImg8bit" / split / city / f"{stem}_leftImg8bit.png", mask, 34)


def write_image(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(value).integers(0, 256, (32, 32, 3), np.uint8)).save(path)


def image_folder(root):
    for split in ("train", "val", "test"):
        for index in range(8):
            write_image(root / split / f"{index % 2}" / f"{index}_0.png", index)


def characters(root):
    (root / "classes.json").parent.mkdir(parents=True)
    (root / "classes.json").write_text('["A", "B"]')
    for name in ("train", "val"):
        for index in range(8):
            write_image(root / f"{name}{index}.png", index)
        (root / f"{name}.txt").write_text("".join(f"{name}{index}.png {index % 2}\n" for index in range(8)))


def cifar(root):
    root.mkdir(parents=True)
    with tarfile.open(root / "cifar10_images.tar.xz", "w:xz") as archive:
        for split in ("train", "test"):
            for index, name in enumerate(CIFAR10Data.class_names[:2] * 4):
                write_image(root / "image.jpg", index)
                archive.add(root / "image.jpg", f"{split}/{name}/{index:04d}.jpg")


def voc(root):
    for index in range(4):
        write_image(root / f"{index}.png", index)
        box = f"<bndbox><xmin>2</xmin><ymin>{index}</ymin><xmax>30</xmax><ymax>28</ymax></bndbox>"
        text = f"<annotation><object><name>{'ab'[index % 2]}</name>{box}</object></annotation>"
        (root / f"{index}.xml").write_text(text)
    for name in ("train", "valid"):
        (root / f"{name}.txt").write_text("".join(f"{index}.png {index}.xml\n" for index in range(4)))
    (root / "label_list.txt").write_text("a\nb\n")


def kitti(root):
    for folder in ("ImageSets", "training/label_2"):
        (root / folder).mkdir(parents=True)
    for index in range(4):
        write_image(root / f"training/image_2/{index:06d}.png", index)
        line = f"Car 0.0 0 -1.5 1.0 {index}.0 30.0 30.0 1.5 1.6 3.4 4.4 1.6 12.5 -1.4\n"
        (root / f"training/label_2/{index:06d}.txt").write_text(line)
    for name in ("train", "val"):
        (root / f"ImageSets/{name}.txt").write_text("000000\n000001\n000002\n000003\n")


TREES = {
    "prunus.data.VOCData": voc,
    "prunus.data.KITTIData": kitti,
    "prunus.data.CamVidData": camvid,
    "prunus.data.CityscapesData": cityscapes,
    "prunus.data.ImageFolderData": image_folder,
    "prunus.data.Chars74KData": characters,
    "prunus.data.CIFAR10Data": cifar,
}
NARROW = {  # a step must take no longer than it has to
    "prunus.models.erfnet.ERFNet": ["model.width_multiplier=0.5"],
    "prunus.models.small.ResidualNet": ["model.widths=[8, 8]"],
    "prunus.models.decn.Dec8": ["model.width=16"],
    "prunus.models.decn.Dec3": ["model.width=16", "model.stem=[[8, 8], [8, 8]]"],
    "prunus.models.resnet_1d.ResNet1d": ["model.blocks=[1, 1]", "model.width=32"],
    "prunus.models.alexnet_like.AlexNetLike": ["model.width=16", "model.hidden=[32]", "data.size=[64, 64]"],
    "torchvision.models.MobileNetV2": ["model.width_mult=0.25"],
    "prunus.models.small_net.SmallNet": ["data.size=[32, 32]"],
    "prunus.models.centre_detector.CentreDetector": ["model.widths=[8, 16, 24]", "model.neck=8"],
    "prunus.models.multi_task_net.MultiTaskNet": ["model.widths=[8, 16, 24]", "model.neck=8"],
}


def narrowing(path):
    """The overrides that make the recipe's network small."""
    return NARROW[recipe.resolve(pipeline.Recipe, path)["model"]["class_path"]]


def loaded(path, tmp_path, *overrides):
    """Load a recipe, its data the tiny tree that its reader expects."""
    tree = TREES.get(recipe.resolve(pipeline.Recipe, path)["data"]["class_path"])
    data = STREET
    if tree is not None:
        tree(tmp_path / "data")
        data = [f"data.root={tmp_path / 'data'}"]
    return recipe.load(pipeline.Recipe, path, [*data, f"output={tmp_path / 'run'}", *overrides])


def shortened(chosen):
    """The recipe with one epoch in each of its further stages."""
    short = dataclasses.replace(chosen.train, epochs=1, milestones=(), schedule="constant")
    then = tuple(dataclasses.replace(stage, train=stage.train and short) for stage in chosen.then)
    return dataclasses.replace(chosen, train=short, then=then)


def test_the_three_recipes_are_there_and_come_with_the_package():
    assert {path.stem for path in RECIPES} >= {"street_erfnet", "camvid_erfnet", "cityscapes_erfnet"}
    shipped = importlib.resources.files("prunus") / "recipes"
    assert {path.name for path in RECIPES} == {path.name for path in shipped.iterdir()}


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_its_first_line_says_what_it_is_and_its_name_is_its_file(path):
    first = path.read_text().splitlines()[0]
    assert first.startswith("# ") and len(first) > 40
    assert recipe.resolve(pipeline.Recipe, path)["name"] == path.stem


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_it_trains(path, tmp_path):
    chosen = shortened(loaded(path, tmp_path, *SMALL, *narrowing(path)))
    task, inputs = chosen.task.bind(chosen.data), chosen.data.train()[0][0][None]
    run = RunContext(
        recipe=chosen,
        folder=tmp_path / "run",
        recorder=Recorder(tmp_path / "run"),
        task=task,
        inputs=inputs,
        watch=pipeline.Watch(),
    )
    wide = stages.build_wide(run)
    rehearse(chosen.stages, wide, inputs)
    *_, narrow = stages.run_stages(run, None, Network(name="wide", model=wide))
    epochs = [record for record in read(tmp_path / "run") if isinstance(record, EpochRecord)]
    assert len(epochs) == len([stage for stage in chosen.stages if stage.train is not None])
    assert all(0 < epoch.loss < 10 for epoch in epochs)
    assert sum(p.numel() for p in narrow.model.parameters()) <= sum(p.numel() for p in wide.parameters())
    first, *_ = task.by_task()
    answers = named_outputs(task.part(first, narrow.model.eval()(inputs), {first: None})[0]).values()
    numbers = chosen.data.num_classes
    assert next(iter(answers)).shape[:2] == (1, numbers[first] if isinstance(numbers, dict) else numbers)


def test_cityscapes_is_the_published_regime(tmp_path):
    chosen = loaded(next(path for path in RECIPES if path.stem == "cityscapes_erfnet"), tmp_path)
    assert chosen.data.size == (512, 1024)
    assert (chosen.data.augmentation.flip, chosen.data.augmentation.shift) == (0.5, 2)
    assert (chosen.encoder_stage.task.class_weight_offset, chosen.task.class_weight_offset) == (1.2, 1.10)
    for train in (chosen.encoder_stage.train, chosen.train):
        assert (train.epochs, train.batch_size, train.schedule, train.power) == (150, 6, "poly", 0.9)
        assert (train.optimizer.name, train.optimizer.learning_rate) == ("adam", 5e-4)
        assert train.optimizer.weight_decay == 1e-4
    assert chosen.shrink.budget == Budget(macs=0.4, multiple_of=8)
    # void counts for nothing: a mask of void alone gives no loss
    task = chosen.task.bind(chosen.data)
    void = torch.full((1, 8, 8), chosen.data.ignore_index)
    assert task.loss(torch.randn(1, 19, 8, 8), void) == 0


def test_the_encoder_stage_of_cityscapes_trains_on_masks_sampled_down(tmp_path):
    path = next(path for path in RECIPES if path.stem == "cityscapes_erfnet")
    small = [item.replace("train.", "encoder_stage.train.") for item in SMALL]
    chosen = loaded(path, tmp_path, *small, "model.width_multiplier=0.5")
    run = RunContext(
        recipe=chosen,
        folder=tmp_path / "run",
        recorder=Recorder(tmp_path / "run"),
        task=chosen.task.bind(chosen.data),
        inputs=chosen.data.train()[0][0][None],
        watch=pipeline.Watch(),
    )
    trained = stages.train_encoder(run, chosen.encoder_stage)
    fresh = stages.build_wide(run).get_submodule("encoder").state_dict()
    assert {path: value.shape for path, value in trained.items()} == {
        path: value.shape for path, value in fresh.items()
    }
    learned = [path for path, value in trained.items() if value.is_floating_point() and value.dim() > 1]
    assert learned and not any(torch.equal(trained[path].cpu(), fresh[path]) for path in learned)


def test_camvid_is_at_full_size_with_the_full_regime(tmp_path):
    chosen = loaded(next(path for path in RECIPES if path.stem == "camvid_erfnet"), tmp_path)
    assert chosen.data.size == (360, 480)
    assert (chosen.train.epochs, chosen.train.batch_size, chosen.task.class_weight_offset) == (150, 6, 1.10)


def test_icdar_and_expandnets_have_the_published_schedules(tmp_path):
    chosen = {path.stem: recipe.load(pipeline.Recipe, path) for path in RECIPES if path.stem != "street_erfnet"}
    icdar, small = chosen["icdar_dec3_512"].train, chosen["cifar10_small_net"].train
    assert [round(icdar.factor(epoch), 9) for epoch in (0, 1, 2, 6.9, 7, 15, 44)] == [
        1,
        1,
        0.1,
        0.1,
        0.01,
        0.001,
        0.001,
    ]
    assert (small.epochs, small.milestones, small.optimizer.weight_decay, small.batch_size) == (150, (50, 100), 0, 128)


@pytest.mark.slow
def test_the_talk_walks_all_of_its_reshapings(tmp_path):
    path = next(path for path in RECIPES if path.stem == "talk_street")
    sizes = ["data.num_train=8", "data.num_validation=2", "data.num_test=2", "train.epochs=1"]
    chosen = recipe.load(pipeline.Recipe, path, [*sizes, f"output={tmp_path}", "model.width_multiplier=0.25"])
    records = read(pipeline.run(chosen))
    edits = {record.edit for record in records if isinstance(record, EditRecord)}
    assert edits >= {"Decompose", "Expand", "Contract", "Factorize", "RemoveChannels", "FuseBatchNorm"}
    stages_of = {kind: {r.model for r in records if isinstance(r, kind)} for kind in (EvaluationRecord, LatencyRecord)}
    names = {"wide", "joint", "contracted", "factorised", "narrow", "scratch-sgd", "scratch-adam"}
    assert stages_of == {EvaluationRecord: names, LatencyRecord: names}


def test_layers_that_are_kept_are_written_as_a_list(tmp_path):
    kept = """
shrink: {budget: {macs: 0.5, keep: ["encoder.*", decoder]}}
penalties:
- class_path: prunus.GroupLasso
  init_args: {strength: 0.1, keep: ["encoder.*"]}
"""
    path = tmp_path / "recipe.yaml"
    path.write_text(tiny.RECIPE + kept)
    loaded = recipe.load(pipeline.Recipe, path)
    assert loaded.shrink.budget.keep == ("encoder.*", "decoder")
    assert loaded.penalties[0].keep == ("encoder.*",)
