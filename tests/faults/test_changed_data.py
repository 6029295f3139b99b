"""The data are part of a run's state: changed between two commands, it says what differs and refuses unless told."""

import io
import json
import re
import tarfile

import numpy as np
import pytest
import tiny
from PIL import Image

from prunus import cli
from prunus.data import ImageFolderData, ShardsData
from prunus.data.inventory import inventory, inventory_differences
from prunus.data.shard_index import ShardIndex, write_index
from prunus.errors import DataError
from prunus.pipeline.run_record import refuse_other_data
from prunus.records import Recorder, RunRecord


def write_images(root, classes=("bike", "car"), count=3):
    for name in classes:
        for number in range(count):
            folder = root / "train" / name
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((9, 9, 3), 20 * number, np.uint8)).save(folder / f"{number}.png")
    return root


def data(root):
    return ImageFolderData(root=root, size=(8, 8), validation_folder=None, test_folder="train", validation_share=0.3)


def renamed(root):
    (root / "train" / "car").rename(root / "train" / "lorry")


def swapped(root):
    (root / "classes.json").write_text('["car", "bike"]')


def added(root):
    write_images(root, ("car",), 4)


def moved(root):
    (root / "train" / "car" / "2.png").rename(root / "train" / "bike" / "9.png")


def replaced(root):
    (root / "train" / "car" / "2.png").rename(root / "train" / "car" / "7.png")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (renamed, "class 1 was car and is lorry"),
        (swapped, "class 0 was bike and is car; class 1 was car and is bike"),
        (added, "the train split had 4 samples and has 5"),
        (moved, "the train split .* other files or labels"),
        (replaced, "the test split .* other files or labels"),
    ],
)
def test_what_differs_is_named(tmp_path, change, told):
    before = json.loads(json.dumps(inventory(data(write_images(tmp_path)))))
    assert inventory_differences(before, inventory(data(tmp_path))) == []
    assert inventory_differences({}, inventory(data(tmp_path))) == []  # a run of an earlier version
    change(tmp_path)
    found = "; ".join(inventory_differences(before, inventory(data(tmp_path))))
    assert found and re.search(told, found)


def test_a_data_set_may_be_moved(tmp_path):
    before = inventory(data(write_images(tmp_path / "here")))
    (tmp_path / "here").rename(tmp_path / "there")
    assert inventory_differences(before, inventory(data(tmp_path / "there"))) == []


def record(found):
    return RunRecord(
        name="a", command="", seed=0, recipe={}, versions={}, hardware={}, started="", class_names=(), palette=(),
        input_shape=(1,), data=found,
    )  # fmt: skip


def test_a_run_on_other_data_is_refused(tmp_path):
    recorder = Recorder(tmp_path / "run")
    now = record(inventory(data(write_images(tmp_path / "set"))))
    refuse_other_data(recorder, now)
    recorder.write(now)
    refuse_other_data(recorder, now)
    renamed(tmp_path / "set")
    with pytest.raises(DataError, match=r"class 1 was car and is lorry.*--accept-changes"):
        refuse_other_data(recorder, record(inventory(data(tmp_path / "set"))))


@pytest.mark.slow
def test_the_command_line_refuses_it_unless_told(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    tiny.write_recipe(tmp_path)
    run = ["run", "tiny.yaml", "train.epochs=1", "baseline=false"]
    assert cli.main(run) == 0
    lines = (tmp_path / "runs/tiny/records.jsonl").read_text().splitlines(keepends=True)
    first = json.loads(lines[0])
    first["data"]["class_names"][0] = "pavement"
    (tmp_path / "runs/tiny/records.jsonl").write_text(json.dumps(first) + "\n" + "".join(lines[1:]))
    assert cli.main(run) == 1
    assert "class 0 was pavement" in capsys.readouterr().err
    assert cli.main([*run, "--accept-changes"]) == 0
    assert "The data changed while the run was under way" in (tmp_path / "runs/tiny/report.html").read_text()


def shards(root, labels):

    root.mkdir(exist_ok=True)
    (root / "classes.json").write_text('["a", "b"]')
    with tarfile.open(root / "train-000000.tar", "w") as archive:
        for number, label in enumerate(labels):
            picture = io.BytesIO()
            Image.fromarray(np.full((9, 9, 3), number, np.uint8)).save(picture, "PNG")
            for name, content in ((f"{number}.png", picture.getvalue()), (f"{number}.cls", b"%d" % label)):
                info = tarfile.TarInfo(name)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return root


def test_a_shard_that_was_replaced_after_its_index_has_its_own_labels(tmp_path):
    root = shards(tmp_path, [0, 1, 0])
    first = ShardsData(root=root, size=(8, 8)).train()
    assert list(first.source.labels) == [0, 1, 0]
    before = (root / "train-000000.tar").stat()
    shards(root, [1, 0, 1])
    assert (root / "train-000000.tar").stat().st_size == before.st_size  # the size alone would not tell
    assert list(ShardsData(root=root, size=(8, 8)).train().source.labels) == [1, 0, 1]
    shards(root, [1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1])
    assert list(ShardsData(root=root, size=(8, 8)).train().source.labels) == [1] * 11


def test_an_index_that_travels_without_its_shard_is_believed_until_the_shard_is_there(tmp_path):
    root = shards(tmp_path, [0, 1])
    index = ShardIndex.read(write_index(root / "train-000000.tar"))
    status = (root / "train-000000.tar").stat()
    assert index.is_of(status, fetched=False)
    (root / "train-000000.tar").rename(root / "elsewhere")
    assert list(ShardsData(root=root, size=(8, 8), fetch="false").train().source.labels) == [0, 1]
