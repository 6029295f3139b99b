"""Scenes: the same by seed and index, at any size, with boxes that agree with the mask."""

from random import Random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prunus.data.street import FIRST_INDEX, SMALLEST_OBJECT, StreetData, render
from prunus.data.street.composition import MOST_THINGS, compose
from prunus.data.street.conditions import CONDITIONS, look_of
from prunus.data.street.light import develop
from prunus.data.street.scene import Camera, Label
from prunus.errors import RecipeError

SIZE = (64, 128)
OBJECTS = {Label.CAR, Label.PEDESTRIAN, Label.SIGN}


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    index=st.integers(0, 2**32),
    height=st.integers(8, 200),
    width=st.integers(8, 260),
)
def test_any_scene_at_any_size_is_whole(seed, index, height, width):
    scene = render(seed, index, (height, width))
    assert scene.image.shape == (3, height, width) and scene.image.dtype == np.uint8
    assert scene.mask.shape == (height, width) and scene.mask.dtype == np.uint8
    assert scene.mask.max() < len(Label)
    assert len(scene.boxes) == len(scene.labels)
    assert set(scene.labels.tolist()) <= OBJECTS
    assert scene.condition in CONDITIONS


def test_same_seed_and_index_give_the_same_scene():
    first, again = render(3, 17, SIZE), render(3, 17, SIZE)
    for name in ("image", "mask", "instances", "boxes", "labels"):
        assert np.array_equal(getattr(first, name), getattr(again, name)), name
    assert first.condition == again.condition


def test_other_seed_or_index_gives_another_scene():
    masks = [render(seed, index, SIZE).mask for seed, index in ((0, 0), (0, 1), (1, 0), (1, 1))]
    assert len({mask.tobytes() for mask in masks}) == 4


@pytest.mark.parametrize("index", range(10))
def test_boxes_are_tight_around_what_the_mask_shows(index):
    scene = render(5, index, SIZE)
    assert scene.instances.max() == len(scene.boxes)
    for number, (box, label) in enumerate(zip(scene.boxes, scene.labels, strict=True), 1):
        rows, columns = np.nonzero(scene.instances == number)
        assert len(rows) >= SMALLEST_OBJECT
        assert (scene.mask[rows, columns] == label).all()
        assert box.tolist() == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


def test_large_areas_of_an_object_class_belong_to_a_box():
    pixels = boxed = 0
    for index in range(10):
        scene = render(6, index, SIZE)
        objects = np.isin(scene.mask, list(OBJECTS))
        pixels, boxed = pixels + objects.sum(), boxed + (scene.instances[objects] > 0).sum()
    assert boxed > 0.95 * pixels


def test_all_conditions_and_classes_occur_and_night_is_dark():
    scenes = [render(0, index, SIZE) for index in range(40)]
    assert {scene.condition for scene in scenes} == set(CONDITIONS)
    assert set(np.unique([scene.mask for scene in scenes]).tolist()) == set(range(len(Label)))
    brightness = {
        name: np.mean([scene.image.mean() for scene in scenes if scene.condition == name]) for name in CONDITIONS
    }
    assert brightness["night"] < 0.8 * brightness["dusk"] < 0.8 * brightness["day"]


def test_fog_hides_what_is_far_but_not_what_is_near():
    look = look_of("fog", Random(0))
    picture = np.tile(np.float32([20, 220]), (3, 32, 16))  # stripes, as strong everywhere
    depth = np.full((32, 32), 3, np.float32)
    depth[:16] = 120
    labels = np.full((32, 32), Label.ROAD, np.uint8)
    image = develop(picture, labels, depth, None, look, Random(0), horizon=8)
    far, near = image[:, :16].astype(float), image[:, 16:].astype(float)
    assert far.std() < 0.25 * near.std()
    assert far.mean() > near.mean()


def test_perspective_shrinks_with_distance():
    camera = Camera(focal=100, centre=64, horizon=30, height=1.5, offset=0, curvature=0)
    assert camera.project(0, 1.5, 10) == (64, 30)  # at the height of the camera: on the horizon
    assert camera.project(1, 0, 10) == (74, 45)
    assert camera.project(1, 0, 20) == (69, 37.5)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32))
def test_a_street_is_sorted_and_fits_the_canvas(seed):
    street = compose(Random(seed), 256, 128)
    assert 5 < len(street.things) <= MOST_THINGS
    walkers = [-thing.z for thing in street.things if thing.kind != "building"]
    assert walkers == sorted(walkers)
    assert street.kerb(-1) < street.camera.offset < street.kerb(1)


def test_splits_do_not_overlap_and_do_not_depend_on_each_other():
    small, large = StreetData(size=SIZE, num_train=2), StreetData(size=SIZE, num_train=9)
    assert np.array_equal(small.scene("validation", 0).image, large.scene("validation", 0).image)
    assert np.array_equal(small.scene("train", 1).image, large.scene("train", 1).image)
    assert np.array_equal(small.scene("test", 3).image, render(0, FIRST_INDEX["test"] + 3, SIZE).image)
    first = [small.scene(split, 0).mask.tobytes() for split in FIRST_INDEX]
    assert len(set(first)) == 3


def test_frequencies_are_those_of_the_masks():
    data = StreetData(size=SIZE, num_train=7)
    counts = sum(np.bincount(data.scene("train", index).mask.ravel(), minlength=len(Label)) for index in range(7))
    frequencies = data.class_frequencies()
    assert torch.allclose(frequencies, torch.from_numpy(counts / counts.sum()).float())
    assert frequencies.dtype == torch.float32 and len(data.class_names) == len(data.palette) == len(frequencies)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"size": (4, 256)}, r"data\.size .* at least 8, not \(4, 256\)"),
        ({"num_validation": 0}, r"data\.num_validation .* not 0"),
        ({"conditions": ("day", "snow")}, r"snow.*known: day, dusk, night, rain, fog"),
        ({"conditions": ()}, "none given"),
    ],
)
def test_settings_that_make_no_data_are_refused(fields, message):
    with pytest.raises(RecipeError, match=message):
        StreetData(**fields)
