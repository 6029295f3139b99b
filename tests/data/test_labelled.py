"""Readers of labelled images: what they hold, what is held out, and errors that name the file."""

import io
import json
import os
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from prunus.data import Chars74KData, CIFAR10Data, ClassificationData, CropAndFlip, ImageFolderData, LabelledArray
from prunus.data.decode import ENDINGS
from prunus.data.labelled import held_out
from prunus.errors import DataError, RecipeError

REAL = Path(__file__).parents[3] / "shared" / "data"
PLAIN = CropAndFlip(flip=0.0, padding=0)


def write(path, value, size=(10, 12)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*size, 3), value, np.uint8)).save(path)


@pytest.fixture
def folder_tree(tmp_path):
    """Two classes, three tracks of two frames each for training, one track for test."""
    for split, tracks in (("train", 3), ("test", 1)):
        for number, name in enumerate(("00000", "00001")):
            for track in range(tracks):
                for frame in range(2):
                    write(tmp_path / split / name / f"{track:05d}_{frame}.png", 100 * number + 10 * track + frame)
    return tmp_path


def folder(root, **fields):
    defaults = {"size": (10, 12), "validation_folder": None, "test_folder": "test", "augmentation": PLAIN}
    return ImageFolderData(root=root, **{**defaults, **fields})


def test_folders_are_classes_and_images_their_samples(folder_tree):
    data = folder(folder_tree)
    assert data.class_names == ("00000", "00001")
    test = data.test()
    assert [int(test[i][1]) for i in range(len(test))] == [0, 0, 1, 1]
    image, label = test[2]
    assert image.shape == (3, 10, 12) and image.dtype == torch.float32 and label.dtype == torch.int64
    expected = (100 / 255 - 0.485) / 0.229
    torch.testing.assert_close(image[0], torch.full((10, 12), expected))
    assert test.picture(2).unique().tolist() == [100]
    (folder_tree / "classes.json").write_text(json.dumps(["stop", "yield"]))
    assert folder(folder_tree).class_names == ("stop", "yield")


def test_whole_blocks_are_held_out(folder_tree):
    data = folder(folder_tree, validation_share=0.3, block_separator="_")
    names = [path.name for path in data.source("validation").paths]
    assert names == ["00002_0.png", "00002_1.png"] * 2
    kept = {path.name for path in data.source("train").paths}
    assert kept == {f"{track:05d}_{frame}.png" for track in (0, 1) for frame in (0, 1)}


def test_a_class_of_one_block_is_trained_on():
    assert held_out([0, 1, 1, 1], 0.5) == ([0, 1], [2, 3])
    assert held_out([0, 0, 1], 0.1, ["a", "a", "b"]) == ([0, 1, 2], [])


def test_samples_follow_seed_epoch_and_index_alone(folder_tree):
    data = folder(folder_tree, augmentation=CropAndFlip(padding=3, brightness=0.5))
    train, again = data.train(), data.train()
    first = train[3][0]
    torch.rand(5)
    assert torch.equal(first, again[3][0]) and torch.equal(first, pickle.loads(pickle.dumps(data.train()))[3][0])
    train.set_epoch(1)
    assert not torch.equal(first, train[3][0])
    assert torch.equal(data.test()[0][0], folder(folder_tree, cache=False).test()[0][0])
    with pytest.raises(IndexError, match="10 samples"):
        train[10]


def test_crops_give_the_size_from_images_of_any_size(folder_tree):
    write(folder_tree / "train" / "00000" / "00009_0.jpg", 7, size=(40, 20))
    data = folder(folder_tree, size=(8, 8), augmentation=CropAndFlip(area=(0.1, 1.0)))
    for split in (data.train(), data.validation(), data.test()):
        assert all(split[i][0].shape == (3, 8, 8) for i in range(len(split)))


def test_grey_images_have_one_channel(folder_tree):
    image, _ = folder(folder_tree, grey=True).test()[0]
    assert image.shape == (1, 10, 12)


def test_what_is_not_there_is_named(folder_tree, tmp_path):
    with pytest.raises(DataError, match=r"(?s)nowhere does not exist.*train/<class>"):
        _ = folder(tmp_path / "nowhere").class_names
    (folder_tree / "test" / "00007").mkdir()
    with pytest.raises(DataError, match=r"00007 is not a class of"):
        folder(folder_tree).test()
    (folder_tree / "classes.json").write_text('["one"]')
    with pytest.raises(DataError, match=r"classes\.json must be a list of 2 names"):
        _ = folder(folder_tree).class_names
    (folder_tree / "classes.json").unlink()
    broken = folder_tree / "train" / "00000" / "00000_0.png"
    broken.write_bytes(b"no image")
    with pytest.raises(DataError, match=r"00000_0\.png cannot be read"):
        folder(folder_tree).train()[0]
    with pytest.raises(RecipeError, match="validation_share"):
        folder(folder_tree, validation_share=0)
    with pytest.raises(RecipeError, match="area"):
        CropAndFlip(area=(0, 1))


def test_folders_within_a_class_are_read_and_hidden_ones_passed_over(folder_tree):
    plain = folder(folder_tree)
    expected = len(plain.source("train").labels) + len(plain.source("validation").labels)
    write(folder_tree / "train" / ".ipynb_checkpoints" / "00000_0.png", 3)
    write(folder_tree / "train" / "00000" / ".ipynb_checkpoints" / "00000_0.png", 3)
    write(folder_tree / "train" / "00000" / "._00000_0.png", 3)
    write(folder_tree / "train" / "00000" / "night" / "00009_0.png", 9)
    data = folder(folder_tree)
    assert data.class_names == ("00000", "00001")
    found = [*data.source("train").paths, *data.source("validation").paths]
    assert len(found) == expected + 1 and folder_tree / "train" / "00000" / "night" / "00009_0.png" in found


def test_classes_without_images_or_with_one_name_are_refused(folder_tree):
    (folder_tree / "classes.json").write_text('["stop", "stop"]')
    with pytest.raises(DataError, match=r"classes\.json gives several classes the name stop"):
        _ = folder(folder_tree).class_names
    (folder_tree / "classes.json").unlink()
    (folder_tree / "train" / "00002").mkdir()
    with pytest.raises(DataError, match="00002 holds no image"):
        folder(folder_tree).train()


def test_one_image_a_class_leaves_none_for_validation(folder_tree):
    for path in folder_tree.glob("train/*/*_1.png"):
        path.unlink()
    for path in folder_tree.glob("train/*/0000[12]_0.png"):
        path.unlink()
    with pytest.raises(DataError, match=r"one image per class.*data\.validation_folder"):
        folder(folder_tree).validation()


class Own(ClassificationData):
    """Images of one's own."""

    class_names, augmentation, grey, seed, size = ("a", "b"), PLAIN, False, 0, (8, 8)

    def __init__(self, images, labels, cache=False):
        self.images, self.labels, self.cache = images, labels, cache

    def source(self, split):
        return LabelledArray(self.images, self.labels, size=None)


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (torch.zeros(2, 3, 8, 8, dtype=torch.uint8), [0, 2], "train split's sample 1 has the label 2.*2 classes"),
        (torch.zeros(2, 3, 8, 8, dtype=torch.uint8), [-1, 0], "sample 0 has the label -1"),
        (torch.zeros(2, 3, 8, 8, dtype=torch.uint8), ["0", "1"], "sample 0 has the label '0'"),
        (torch.zeros(2, 3, 8, 8, dtype=torch.uint8), [1.0, 0], "sample 0 has the label 1.0"),
        (torch.zeros(2, 3, 8, 8), [0, 1], r"float32 \[3, 8, 8\]: a source gives pixels .*uint8"),
        (torch.zeros(2, 1, 8, 8, dtype=torch.uint8), [0, 1], r"uint8 \[1, 8, 8\]"),
        (torch.zeros(0, 3, 8, 8, dtype=torch.uint8), [], "train split of Own holds no image"),
    ],
)
@pytest.mark.parametrize("cache", [False, True])
def test_what_a_source_may_not_give_is_named(images, labels, message, cache):
    with pytest.raises(DataError, match=message):
        Own(images, labels, cache).train()[1]


@pytest.fixture
def chars_tree(tmp_path):
    (tmp_path / "classes.json").write_text('["A", "B"]')
    for split, count in (("train", 10), ("val", 2)):
        names = [f"Bmp/{split}-{i}.png" for i in range(count)]
        for i, name in enumerate(names):
            write(tmp_path / name, i)
        (tmp_path / f"{split}.txt").write_text("".join(f"{name} {i % 2}\n" for i, name in enumerate(names)))
    return tmp_path


def test_lists_of_characters(chars_tree):
    data = Chars74KData(root=chars_tree, size=(10, 12))
    assert [len(split) for split in (data.train(), data.validation(), data.test())] == [8, 2, 2]
    image, label = data.test()[1]
    assert image.shape == (1, 10, 12) and int(label) == 1 and data.class_names == ("A", "B")
    with (chars_tree / "train.txt").open("a") as file:
        file.write("Bmp/train-0.png 2\n")
    with pytest.raises(DataError, match=r"train\.txt, line 11: .*from 0 to 1"):
        data.source("train")


def archive(path, members):
    with tarfile.open(path, "w:xz") as file:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))


def jpeg(value, size=32):
    buffer = io.BytesIO()
    Image.fromarray(np.full((size, size, 3), value, np.uint8)).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def test_cifar_is_read_from_its_archive(tmp_path):
    names = CIFAR10Data.class_names
    members = {f"train/{name}/{i:04d}.jpg": jpeg(10 * k + i) for k, name in enumerate(names) for i in range(2)}
    members |= {f"test/{name}/0000.jpg": jpeg(20 * k) for k, name in enumerate(names)}
    archive(tmp_path / "cifar10_images.tar.xz", members)
    data = CIFAR10Data(root=tmp_path, augmentation=PLAIN)
    assert [len(split) for split in (data.train(), data.validation(), data.test())] == [10, 10, 10]
    test = data.test()
    assert [int(test[i][1]) for i in range(10)] == list(range(10))
    assert abs(int(test.picture(4)[0, 5, 5]) - 80) <= 2
    assert data.train()[0][0].shape == (3, 32, 32)


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"train/cat/0000.jpg": b"no image"}, r"train/cat/0000\.jpg cannot be read"),
        ({"train/cat/0000.jpg": jpeg(1, 16)}, r"16 x 16 pixels, not 32 x 32"),
        ({"train/lion/0000.jpg": jpeg(1)}, r"train/lion/0000\.jpg, which is not expected"),
        ({"train/cat/0000.jpg": jpeg(1)}, r"no image in test/"),
    ],
    ids=["damaged", "size", "class", "empty"],
)
def test_an_archive_of_something_else_is_refused(tmp_path, members, message):
    archive(tmp_path / "cifar10_images.tar.xz", members)
    with pytest.raises(DataError, match=message):
        CIFAR10Data(root=tmp_path).test()


def test_a_damaged_archive_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"cifar10_images\.tar\.xz does not exist"):
        CIFAR10Data(root=tmp_path).test()
    archive(tmp_path / "whole.tar.xz", {"test/cat/0000.jpg": jpeg(1)})
    (tmp_path / "cifar10_images.tar.xz").write_bytes((tmp_path / "whole.tar.xz").read_bytes()[:200])
    with pytest.raises(DataError, match="damaged or cut short"):
        CIFAR10Data(root=tmp_path).test()


@pytest.mark.skipif(not (REAL / "gtsrb_small").is_dir(), reason="needs ../shared/data/gtsrb_small")
def test_real_traffic_signs():
    data = folder(REAL / "gtsrb_small", size=(32, 32), block_separator="_")
    kept, held = data.source("train"), data.source("validation")
    assert len(kept.labels) + len(held.labels) == 4062 and len(data.source("test").labels) == 1266
    assert set(kept.labels) == set(range(43)) and data.class_names[14] == "Stop"
    tracks = [{(path.parent.name, path.name.partition("_")[0]) for path in part.paths} for part in (kept, held)]
    assert not tracks[0] & tracks[1]
    assert data.test()[0][0].shape == (3, 32, 32)


@pytest.mark.skipif(not (REAL / "chars74k_img36").is_dir(), reason="needs ../shared/data/chars74k_img36")
def test_real_characters():
    data = Chars74KData(root=REAL / "chars74k_img36")
    assert len(data.source("train").labels) + len(data.source("validation").labels) == 4637
    assert len(data.test()) == 1158 and len(data.class_names) == 36
    assert data.test()[0][0].shape == (1, 32, 32)


@pytest.mark.parametrize("ending", sorted(set(ENDINGS) - {".pfm"}))
def test_images_of_every_format_that_is_read_are_found(folder_tree, ending):
    path = folder_tree / "test" / "00001" / f"zz{ending.upper()}"
    kind = {".jfif": "JPEG", ".jpe": "JPEG", ".apng": "PNG"}.get(ending)
    picture = Image.new("1" if ending == ".pbm" else "L" if ending == ".pgm" else "RGB", (12, 10))
    picture.save(path, kind) if kind else picture.save(path)
    test = folder(folder_tree).test()
    assert len(test) == 5 and int(test[4][1]) == 1 and not test.picture(4).any()


@pytest.mark.parametrize("name", ["a.heic", "a.HEIF", "a.avif", "a.svg", "a.ras"])
def test_an_image_of_a_kind_that_is_not_read_is_named(folder_tree, name):
    (folder_tree / "train" / "00001" / name).write_bytes(b"")
    with pytest.raises(DataError, match=rf"{name} is an image of an unsupported format: convert it"):
        folder(folder_tree).train()


def test_notes_beside_images_are_passed_over(folder_tree):
    for name in ("Thumbs.db", "readme.txt", "labels.csv", "desktop.ini"):
        (folder_tree / "test" / "00001" / name).write_text("")
    assert len(folder(folder_tree).test()) == 4


def test_a_folder_that_macos_adds_is_no_class(folder_tree):
    write(folder_tree / "train" / "__MACOSX" / "._00000_0.png", 3)
    write(folder_tree / "train" / "00000" / "__MACOSX" / "00000_0.png", 3)
    data = folder(folder_tree)
    assert data.class_names == ("00000", "00001") and len(data.train()) + len(data.validation()) == 12


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-8"])
@pytest.mark.parametrize("ends", ["\n", "\r\n", " \r\n\r\n"])
def test_lists_as_windows_writes_them(chars_tree, encoding, ends):
    expected = Chars74KData(root=chars_tree, size=(10, 12)).source("train").paths
    for name in ("train.txt", "classes.json"):
        path = chars_tree / name
        path.write_bytes(path.read_text().replace("\n", ends).encode(encoding))
    data = Chars74KData(root=chars_tree, size=(10, 12))
    assert data.source("train").paths == expected and data.class_names == ("A", "B")


@pytest.mark.parametrize("encoding", ["utf-16", "latin-1"])
def test_lists_of_another_encoding_are_named(chars_tree, encoding):
    (chars_tree / "train.txt").write_bytes("Bmp/ü.png 0\n".encode(encoding))
    with pytest.raises(DataError, match=r"train\.txt cannot be read as a list .*save it as text in UTF-8"):
        Chars74KData(root=chars_tree).train()


def test_what_macos_adds_to_archives_is_passed_over(tmp_path):
    members = {f"{split}/{name}/0.jpg": jpeg(9) for split in ("train", "test") for name in CIFAR10Data.class_names}
    members |= {f"train/{name}/1.jpg": jpeg(7) for name in CIFAR10Data.class_names}
    added = {
        "train/airplane/._0.jpg": b"?",
        "__MACOSX/train/._airplane": b"?",
        "._train": b"?",
        "train/.DS_Store": b"?",
    }
    archive(tmp_path / "cifar10_images.tar.xz", added | members)
    data = CIFAR10Data(root=tmp_path)
    assert len(data.test()) == 10 and len(data.train()) + len(data.validation()) == 20


class Raising(ClassificationData):
    """Images of one's own whose source fails at one of them."""

    class_names, augmentation, grey, seed, size, labels = ("a", "b"), PLAIN, False, 0, (8, 8), (0, 1)

    def __init__(self, cache):
        self.cache = cache

    def source(self, split):
        return self

    def __getitem__(self, index):
        return [torch.zeros(3, 8, 8, dtype=torch.uint8)][index]


@pytest.mark.parametrize("cache", [False, True])
def test_what_a_source_of_images_raises_is_named(cache):
    train = Raising(cache).train()
    assert train[0][0].shape == (3, 8, 8)
    for ask in (train.__getitem__, train.picture):
        with pytest.raises(DataError, match=r"image 1 cannot be read: .*IndexError: .*test_labelled\.py, line \d+"):
            ask(1)


@pytest.mark.parametrize("name", ["a.JP2", "a.tga", "a.exr", "a.dng", "a.npy"])
def test_other_images_and_arrays_are_named(folder_tree, name):
    (folder_tree / "train" / "00001" / name).write_bytes(b"")
    with pytest.raises(DataError, match=rf"{name} is an image of an unsupported format: convert it"):
        folder(folder_tree).train()


def test_what_would_be_dropped_in_silence_is_named(folder_tree):
    inside = folder_tree / "train" / "00001"
    for name, make, message in (
        (
            "gone.png",
            lambda path: path.symlink_to("nowhere.png"),
            r"it is a link to nowhere\.png, which does not exist",
        ),
        ("pipe.png", os.mkfifo, r"pipe\.png is not a file \(it is a pipe"),
        (
            "more",
            lambda path: path.symlink_to(folder_tree / "test"),
            r"more is a link to a folder, which is not followed",
        ),
    ):
        make(inside / name)
        with pytest.raises(DataError, match=message):
            folder(folder_tree).train()
        (inside / name).unlink()
    (inside / "linked.png").symlink_to(inside / "00000_0.png")
    assert len(folder(folder_tree).source("train").labels) + len(folder(folder_tree).source("validation").labels) == 13


def test_a_file_in_the_place_of_a_split_is_named(folder_tree, tmp_path):
    (tmp_path / "other").write_text("")
    with pytest.raises(DataError, match=r"other is not a folder: it must hold one folder per class"):
        folder(folder_tree, test_folder="other").test()


@pytest.mark.parametrize("text", ['["a", ""]', '["a", "  "]', '["a", true]', '["a", null]'])
def test_names_of_classes_are_text_that_is_not_empty(folder_tree, text):
    (folder_tree / "classes.json").write_text(text)
    with pytest.raises(DataError, match=r"classes\.json must be a list of the classes' names"):
        folder(folder_tree).train()
