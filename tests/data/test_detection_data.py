"""Detection sets: readers against files made here, bad boxes, scaling, augmentation, batches of unequal numbers."""

import math
from pathlib import Path

import pytest
import torch
from box_trees import KITTI_LINES, STILL, voc, write_coco, write_kitti, write_voc
from torch.utils.data import DataLoader

from prunus.boxes import COLUMNS, EVERY, Objects, covered, overlaps
from prunus.data import DetectionData, KITTIData, StreetBoxesData, VOCData
from prunus.data.augmentation import Augmentation
from prunus.data.detection import augmented
from prunus.errors import DataError, RecipeError

SHARED = Path(__file__).parents[3] / "shared" / "data"


def test_voc_is_read_as_it_stands(tmp_path):
    data = voc(write_voc(tmp_path, [("light", 1, 2, 11, 12), ("stop", 0, 0, 40, 20)]), validation_share=0.34)
    assert data.class_names == ("stop", "light")
    assert (len(data.train()), len(data.validation()), len(data.test())) == (2, 1, 3)
    image, rows = data.test()[0]
    objects = Objects.from_rows(rows)
    assert image.shape == (3, 20, 40) and rows.shape == (2, len(COLUMNS))
    assert objects.labels.tolist() == [1, 0] and objects.scale == 1
    assert objects.boxes.tolist() == [[1, 2, 11, 12], [0, 0, 40, 20]]


def test_in_voc_own_numbering_the_first_pixel_is_one(tmp_path):
    data = voc(write_voc(tmp_path, [("stop", 1, 1, 40, 20)]), first_pixel=1)
    assert Objects.from_rows(data.test()[0][1]).boxes.tolist() == [[0, 0, 40, 20]]


def test_kitti_knows_neighbours_regions_and_what_is_background(tmp_path):
    data = KITTIData(root=write_kitti(tmp_path), size=(40, 80), augmentation=STILL)
    objects = Objects.from_rows(data.test()[0][1])
    assert objects.labels.tolist() == [0, 0, EVERY]
    assert objects.ignored.tolist() == [False, True, True]
    assert objects.boxes.tolist() == [[8, 4, 48, 36], [60, 4, 78, 36], [20, 0, 80, 10]]  # the last one was clipped
    assert objects.truncation[0] == 0.25 and objects.occlusion[0] == 1 and objects.distance[0] == 12.5
    assert math.isnan(objects.distance[2]) and objects.scale == 2
    assert data.notes() == tuple(
        f"Boxes of the {name} split: 2 cut at the border of their image." for name in ("train", "validation", "test")
    )


def test_coco_goes_by_the_order_of_its_ids(tmp_path):
    boxes = [
        {"image_id": 10, "category_id": 7, "bbox": [1, 2, 10, 5], "iscrowd": 0},
        {"image_id": 10, "category_id": 3, "bbox": [0, 0, 4, 4], "iscrowd": 1},
    ]
    data = write_coco(tmp_path, boxes)
    assert data.class_names == ("cat", "dog")
    objects = Objects.from_rows(data.test()[0][1])
    assert objects.boxes.tolist() == [[1, 2, 11, 7], [0, 0, 4, 4]]
    assert objects.labels.tolist() == [1, 0] and objects.ignored.tolist() == [False, True]
    assert len(Objects.from_rows(data.test()[1][1])) == 0  # an image without an object is a sample too
    with pytest.raises(DataError, match=r"instances_train2017\.json has 1 images but no object"):
        data.validation()


def test_street_scenes_have_boxes_and_conditions():
    data = StreetBoxesData(size=(64, 128), num_train=5, num_validation=2, num_test=5, augmentation=STILL)
    split = data.test()
    assert [split.conditions(index) for index in range(5)] == [
        (data.scenes().scene("test", index).condition,) for index in range(5)
    ]
    scene = data.scenes().scene("test", 2)
    objects = Objects.from_rows(split[2][1])
    assert objects.boxes.tolist() == scene.boxes.tolist()
    assert {data.class_names[label] for label in objects.labels.tolist()} <= {"car", "pedestrian", "sign"}
    assert torch.equal(split.picture(2), torch.from_numpy(scene.image))
    again = StreetBoxesData(size=(64, 128), num_train=5, num_validation=2, num_test=5).test()
    assert torch.equal(again.source.objects(2).boxes, objects.boxes)  # without the image being drawn first


BAD = {
    "outside": (("stop", 1, 2, 41, 12), r"annotations/a\.xml, line 3: the box lies outside its image of 40 x 20"),
    "area": (("stop", 5, 2, 5, 12), r"annotations/a\.xml, line 3: the box has no area: x 5 to 5"),
    "class": (("cow", 1, 2, 11, 12), r"annotations/a\.xml, line 3: the box has the unknown class 'cow'; known: stop"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_box_is_refused_with_its_file_and_line_or_counted(kind, tmp_path):
    box, message = BAD[kind]
    root = write_voc(tmp_path, [box, ("light", 1, 1, 9, 9)], names=("a", "b"))
    with pytest.raises(DataError, match=message + r".*data\.on_bad_box"):
        voc(root, validation_share=0.5).test()
    data = voc(root, validation_share=0.5, on_bad_box="skip")
    assert Objects.from_rows(data.test()[0][1]).labels.tolist() == [1]
    assert "2 left out," in data.notes()[2]
    if kind == "class":
        with pytest.raises(DataError, match="'cow'"):
            voc(root, validation_share=0.5, on_bad_box="clip").test()
    else:
        clipped = voc(root, validation_share=0.5, on_bad_box="clip")
        boxes = Objects.from_rows(clipped.test()[0][1]).boxes.tolist()
        assert boxes == ([[1, 2, 40, 12], [1, 1, 9, 9]] if kind == "outside" else [[1, 1, 9, 9]])


def test_files_that_are_not_there_or_say_nothing_are_named(tmp_path):
    root = write_voc(tmp_path / "voc", [("stop", 1, 2, 11, 12)])
    (root / "annotations/b.xml").unlink()
    with pytest.raises(DataError, match=r"annotations/b\.xml does not exist, though its image is listed"):
        voc(root).test()
    (root / "annotations/b.xml").write_text("<annotation><object><name>stop</name></object></annotation>")
    with pytest.raises(DataError, match=r"b\.xml, line 1: an <object> needs <name> and <bndbox>"):
        voc(root).test()
    (root / "valid.txt").write_text("\n")
    with pytest.raises(DataError, match=r"valid\.txt names no image"):
        voc(root).test()
    with pytest.raises(DataError, match=r"valid\.txt has 3 images but no object of its classes"):
        voc(write_voc(tmp_path / "empty", [])).test()
    with pytest.raises(RecipeError, match="first_pixel"):
        voc(root, first_pixel=2)
    with pytest.raises(RecipeError, match="on_bad_box is 'drop'; choose one of raise, clip, skip"):
        voc(root, on_bad_box="drop").test()
    with pytest.raises(DataError, match="class stop twice"):
        voc(root, classes=("stop", "light", "stop")).test()
    (root / "label_list.txt").write_text("\n")
    with pytest.raises(DataError, match="no class"):
        VOCData(root=root, size=(64, 64), first_pixel=0).test()


def test_too_few_images_to_hold_one_back(tmp_path):
    root = write_voc(tmp_path, [("stop", 1, 2, 11, 12)], names=("a",))
    with pytest.raises(DataError, match=r"train\.txt has 1 images.*none is left to train on"):
        voc(root).train()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("Car 0 0", r"000000\.txt, line 1: expected a type .*and 14 numbers, got 'Car 0 0'"),
        ("Lorry" + KITTI_LINES[0][3:], r"line 1: expected a type"),
        (KITTI_LINES[0].replace("12.5", "far"), r"line 1: could not convert string to float: 'far'"),
        (KITTI_LINES[0].replace("0.25", "nan"), r"line 1: 'Car nan 1 .* holds nan or inf"),
    ],
)
def test_a_kitti_line_that_is_none_is_named(line, message, tmp_path):
    with pytest.raises(DataError, match=message):
        KITTIData(root=write_kitti(tmp_path, [line])).test()


@pytest.mark.parametrize(
    ("annotation", "message"),
    [
        ({"image_id": 99, "category_id": 7, "bbox": [1, 2, 3, 4]}, r"annotations\[0\] \(id 0\) is of the image 99"),
        ({"image_id": 10, "category_id": 7, "bbox": [1, 2, 3]}, r"annotations\[0\] .*must be \[x, y, width, height\]"),
        ({"image_id": 10, "category_id": 5, "bbox": [1, 2, 3, 4]}, "has the unknown class 'category_id 5'"),
        ({"image_id": 10, "category_id": 7, "bbox": [1, 2, 0, 4]}, "has no area"),
        (
            {"image_id": 10, "category_id": 7, "bbox": [1, 2, 3, 4], "iscrowd": "0"},
            "iscrowd is '0', and must be 0 or 1",
        ),
        ({"image_id": 10, "category_id": 7, "bbox": [1, 2, 3, 4], "iscrowd": math.nan}, "iscrowd is nan"),
    ],
)
def test_a_coco_annotation_that_does_not_fit_is_named(annotation, message, tmp_path):
    with pytest.raises(DataError, match=message):
        write_coco(tmp_path, [annotation]).test()


def test_a_batch_holds_unequal_numbers(tmp_path):
    root = write_voc(tmp_path, [("stop", 1, 2, 11, 12), ("light", 3, 3, 9, 9)])
    empty = "<annotation></annotation>"
    (root / "annotations/b.xml").write_text(empty)
    images, rows = next(iter(DataLoader(voc(root).test(), batch_size=3)))
    assert images.shape == (3, 3, 20, 40) and rows.shape == (3, 2, len(COLUMNS))
    assert [len(Objects.from_rows(each)) for each in rows] == [2, 0, 2]


def test_images_keep_their_aspect_ratio(tmp_path):
    data = voc(write_voc(tmp_path, [("stop", 0, 0, 40, 20)]), size=(60, 60))
    picture, rows = data.test().picture(0), data.test()[0][1]
    objects = Objects.from_rows(rows)
    assert objects.scale == 1.5 and objects.boxes.tolist() == [[0, 0, 60, 30]]
    assert picture.shape == (3, 60, 60) and int(picture[:, 30:].max()) == 0 < int(picture[:, :30].max())


def test_augmentation_moves_boxes_with_the_image():
    image = torch.zeros(3, 20, 40, dtype=torch.uint8)
    image[:, 4:12, 2:10] = 255
    objects = Objects.of(torch.tensor([[2.0, 4, 10, 12]]), torch.tensor([1]))
    for seed in range(6):
        torch.manual_seed(seed)
        moved, found = augmented(image, objects, Augmentation(flip=0.5, shift=8).build(0))
        rows, columns = torch.nonzero(moved[0] > 128, as_tuple=True)
        if len(found):
            expected = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            assert found.boxes[0].tolist() == [float(each) for each in expected]
            assert bool(found.ignored[0]) == (len(rows) < 0.25 * 64)


def test_the_same_sample_comes_whatever_the_workers(tmp_path):
    data = StreetBoxesData(size=(32, 64), num_train=6, num_validation=1, num_test=1)
    split = data.train()
    split.set_epoch(3)
    alone = list(DataLoader(split, batch_size=2))
    together = list(DataLoader(split, batch_size=2, num_workers=2))
    for (one, rows), (other, others) in zip(alone, together, strict=True):
        assert torch.equal(one, other) and torch.equal(rows.nan_to_num(), others.nan_to_num())


def test_overlaps_by_hand():
    first = torch.tensor([[0.0, 0, 4, 4], [1, 1, 1, 5]])
    second = torch.tensor([[2.0, 0, 6, 4], [0, 0, 8, 8]])
    torch.testing.assert_close(overlaps(first, second), torch.tensor([[8 / 24, 16 / 64], [0, 0]]))
    torch.testing.assert_close(covered(first, second), torch.tensor([[0.5, 1.0], [0, 0]]))


def test_rows_without_objects_are_regions_of_no_area():
    rows = Objects.of(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), scale=0.5).rows(3)
    assert (rows[:, 0] == EVERY).all() and (rows[:, 5] == 1).all()
    found = Objects.from_rows(rows)
    assert len(found) == 0 and found.scale == 0.5


@pytest.mark.skipif(not (SHARED / "roadsign_voc").is_dir(), reason="no ../shared/data/roadsign_voc")
def test_road_signs_are_as_their_readme_counts_them():
    data = VOCData(root=SHARED / "roadsign_voc", first_pixel=0, cache=False, validation_share=0.1)
    assert data.class_names == ("speedlimit", "crosswalk", "trafficlight", "stop")
    assert (len(data.train()) + len(data.validation()), len(data.test())) == (717, 160)
    splits = (data.train(), data.validation())
    boxes = [len(split.source.objects(index)) for split in splits for index in range(len(split))]
    assert sum(boxes) == 1008 and data.notes() == ()


@pytest.mark.skipif(not (SHARED / "kitti_sample").is_dir(), reason="no ../shared/data/kitti_sample")
def test_the_kitti_sample_is_as_its_readme_counts_it():
    root = SHARED / "kitti_sample"
    data = KITTIData(root=root, train_list="ImageSets/trainval.txt")
    split = data.train()
    objects = [split.source.objects(index) for index in range(len(split))]
    labels = torch.cat([each.labels[~each.ignored] for each in objects])
    assert labels.bincount().tolist() == [65, 12, 5]
    assert sum(int((each.labels == EVERY).sum()) for each in objects) <= 96
    assert "cut at the border" in data.notes()[0]


def test_an_abstract_reader_needs_a_source():
    with pytest.raises(TypeError, match="source"):
        DetectionData()


def stated(root, text):
    """Put `text` at the beginning of each annotation of Pascal VOC."""
    for path in (root / "annotations").iterdir():
        path.write_text(path.read_text().replace("<annotation>", f"<annotation>{text}", 1))
    return root


SIZE = "<size><width>{}</width><height>{}</height></size>"


def test_boxes_of_an_image_of_another_size_are_refused(tmp_path):
    box = ("stop", 1, 2, 11, 12)
    root = stated(write_voc(tmp_path / "voc", [box]), SIZE.format(80, 40))
    message = r"line \d: the box is that of an image of 80 x 40, and the image has 40 x 20.*data\.on_bad_box"
    for on_bad_box in ("raise", "clip"):
        with pytest.raises(DataError, match=r"a\.xml, " + message):
            voc(root, on_bad_box=on_bad_box).test()
    (tmp_path / "coco").mkdir()
    data = write_coco(tmp_path / "coco", [{"image_id": 10, "category_id": 7, "bbox": [1, 2, 10, 5]}])
    path = data.root / "annotations/instances_val2017.json"
    path.write_text(path.read_text().replace('"id": 10,', '"id": 10, "width": 80, "height": 40,', 1))
    with pytest.raises(DataError, match=message.removeprefix(r"line \d: ")):
        data.test()


@pytest.mark.parametrize("text", ["", SIZE.format(40, 20), SIZE.format(0, 0), "<size><depth>3</depth></size>"])
def test_a_size_may_be_right_or_not_stated(text, tmp_path):
    assert len(voc(stated(write_voc(tmp_path, [("stop", 1, 2, 11, 12)]), text)).test()) == 3


@pytest.mark.parametrize(
    ("text", "value"), [("1", True), ("True", True), ("0", False), ("Unspecified", False), ("", False)]
)
def test_flags_are_read_as_they_are_written(text, value, tmp_path):
    root = write_voc(tmp_path, [("stop", 1, 2, 11, 12), ("stop", 3, 4, 9, 9)])
    for path in (root / "annotations").iterdir():
        path.write_text(path.read_text().replace("<bndbox>", f"<difficult>{text}</difficult><bndbox>", 1))
    assert Objects.from_rows(voc(root).test()[0][1]).ignored.tolist() == [value, False]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<difficult>2</difficult>", "<difficult> is '2', and must be 0 or 1"),
        ("<truncated>maybe</truncated>", "<truncated> is 'maybe'"),
        ("<name>light</name>", "an <object> has one <name> and one <bndbox>; this one has more"),
        ("<bndbox/>", "an <object> has one <name> and one <bndbox>"),
    ],
)
def test_an_object_that_says_two_things_is_named(text, message, tmp_path):
    root = write_voc(tmp_path, [("stop", 1, 2, 11, 12)])
    path = root / "annotations/a.xml"
    path.write_text(path.read_text().replace("</object>", f"{text}</object>"))
    with pytest.raises(DataError, match=rf"a\.xml, line \d: {message}"):
        voc(root).test()


def test_a_class_without_a_name_is_refused(tmp_path):
    with pytest.raises(DataError, match="class 1 has no name"):
        voc(write_voc(tmp_path, [("stop", 1, 2, 11, 12)]), classes=("stop", " ")).test()


def test_outlines_are_not_kept_in_memory(tmp_path):
    box = {"image_id": 10, "category_id": 7, "bbox": [1, 2, 10, 5], "segmentation": [[0.5] * 100]}
    assert "segmentation" not in repr(write_coco(tmp_path, [box])._content("annotations/instances_val2017.json"))


@pytest.mark.parametrize("name", [b"images/a\0.png", b"images/a.png"])
def test_a_name_that_no_file_can_have_is_named(name, tmp_path):
    root = write_voc(tmp_path, [("stop", 1, 2, 11, 12)])
    (root / "valid.txt").write_bytes(name + b" annotations/a\0.xml\n")
    with pytest.raises(DataError, match=r"xml cannot be read as an annotation: no file can have this name"):
        voc(root).test()


class OwnSource:
    """Two images of 40 x 20 with the objects that are given, of which a number may be the exception to raise."""

    def __init__(self, objects, size=(20, 40)):
        self.given, self.size, self.most = objects, size, 2

    def __len__(self):
        return 2

    def image(self, index):
        return torch.zeros(3, 20, 40, dtype=torch.uint8)

    def image_size(self, index):
        return self.size

    def objects(self, index):
        return self.given()

    def conditions(self, index):
        return ()


class Own(DetectionData):
    """A user's own boxes of two classes."""

    size, augmentation, seed, cache, class_names = (20, 40), STILL, 0, False, ("stop", "light")

    def __init__(self, source):
        self.given = source

    def source(self, split, checker):
        return self.given


def own(boxes=((1, 2, 11, 12),), labels=(0,), **columns):
    return Objects.of(torch.tensor(boxes, dtype=torch.float32), torch.tensor(labels), **columns)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (OwnSource(lambda: None), "the objects of image 0 are a NoneType: a source gives prunus.boxes.Objects"),
        (OwnSource(lambda: own(labels=(2,))), r"have the labels \[2\]: each is a class from 0 to 1, or -1"),
        (OwnSource(lambda: own(labels=(-2,))), r"have the labels \[-2\]"),
        (
            OwnSource(lambda: own(boxes=((9, 9, 2, 2),))),
            r"have the box \[9.0, 9.0, 2.0, 2.0\], which is not finite or has",
        ),
        (
            OwnSource(lambda: own(boxes=((1, 2, math.inf, 12),))),
            r"the box \[1.0, 2.0, inf, 12.0\], which is not finite",
        ),
        (
            OwnSource(lambda: own(((1, 2, 3, 4),) * 3, (0,) * 3)),
            "the objects of image 0 are 3, and `most` of its source is 2",
        ),
        (
            OwnSource(lambda: own(ignored=torch.zeros(5, dtype=torch.bool))),
            r"ignored \[5\].*boxes \[M, 4\] and all others",
        ),
        (OwnSource(lambda: 1 / 0), "the objects of image 0 cannot be read: .* ZeroDivisionError"),
        (OwnSource(own, size=(40, 20)), "image 0 has 20 x 40 pixels, and its source states 40 x 20"),
        (OwnSource(own, size=(0, 40)), r"the size of image 0 is \(0, 40\): a source gives \(height, width\)"),
    ],
)
def test_what_a_source_of_boxes_may_not_give_is_named(source, message):
    with pytest.raises(DataError, match=message):
        Own(source).test()[0]


def test_a_source_of_boxes_may_give_regions_and_none():
    assert Objects.from_rows(Own(OwnSource(lambda: own(labels=(EVERY,)))).test()[0][1]).labels.tolist() == [EVERY]
    assert len(Objects.from_rows(Own(OwnSource(lambda: own((), ()))).test()[0][1])) == 0
