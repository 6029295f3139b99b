"""Splits in plain PyTorch: types, normalisation, workers, random augmentation by (seed, epoch, index)."""

import copy
import dataclasses
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from prunus.compat import torchvision
from prunus.data import Augmentation, SegmentationData, StreetData, normalise, to_colours, to_picture
from prunus.data.augmentation import seeded
from prunus.data.source import CachedSource
from prunus.errors import DataError, RecipeError

SIZE = (32, 64)
STRONG = Augmentation(flip=0.5, shift=5, scale=(0.8, 1.3), brightness=0.3, contrast=0.2, saturation=0.2)


def street(**fields):
    return StreetData(size=SIZE, num_train=6, num_validation=3, num_test=2, **fields)


class CountedSource:
    """Samples that say how often they were made."""

    def __init__(self):
        self.made = []

    def __len__(self):
        return 4

    def __getitem__(self, index):
        self.made.append(index)
        return torch.full((3, 8, 9), index, dtype=torch.uint8), torch.full((8, 9), 2 * index, dtype=torch.uint8)

    def mask(self, index):
        return self[index][1]


def test_a_sample_is_what_the_seam_says():
    data = street()
    assert [len(split) for split in (data.train(), data.validation(), data.test())] == [6, 3, 2]
    for split in (data.train(), data.validation(), data.test()):
        image, mask = split[0]
        assert type(image) is torch.Tensor and type(mask) is torch.Tensor
        assert image.dtype == torch.float32 and image.shape == (3, *SIZE)
        assert mask.dtype == torch.int64 and mask.shape == SIZE
        assert (mask[mask != data.ignore_index] < len(data.class_names)).all()
    images = torch.stack([data.train()[index][0] for index in range(6)])
    assert abs(images.mean()) < 1.5 and 0.3 < images.std() < 1.7


def test_an_index_beyond_the_end_ends_iteration():
    split = street().test()
    assert len(list(split)) == 2
    assert torch.equal(split[-1][0], split[1][0])
    with pytest.raises(IndexError, match="index 2 in a split of 2"):
        split[2]


def test_validation_is_not_augmented():
    data = street(augmentation=STRONG)
    scene = data.scene("validation", 1)
    image, mask = data.validation()[1]
    assert torch.equal(mask, torch.from_numpy(scene.mask).long())
    assert torch.equal(to_picture(image), torch.from_numpy(scene.image))


def test_augmentation_depends_on_seed_epoch_and_index_only():
    train = street(augmentation=STRONG).train()
    torch.manual_seed(1)
    first = [train[index] for index in range(6)]
    torch.manual_seed(2)
    backwards = [train[index] for index in reversed(range(6))][::-1]
    assert all(torch.equal(a[0], b[0]) and torch.equal(a[1], b[1]) for a, b in zip(first, backwards, strict=True))
    train.set_epoch(1)
    assert not all(torch.equal(first[index][0], train[index][0]) for index in range(6))
    train.set_epoch(0)
    assert torch.equal(first[3][0], train[3][0])


def test_drawing_augmentation_leaves_the_random_state_alone():
    train = street(augmentation=STRONG).train()
    state = torch.get_rng_state()
    train[0]
    assert torch.equal(state, torch.get_rng_state())
    with pytest.raises(KeyError), seeded(5):
        torch.rand(3)
        raise KeyError
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("cache", [True, False])
def test_persistent_workers_give_what_one_process_gives(cache):
    train = street(augmentation=STRONG, cache=cache).train()
    loader = DataLoader(train, batch_size=2, num_workers=2, persistent_workers=True, multiprocessing_context="fork")
    for epoch in (0, 1):
        train.set_epoch(epoch)
        loaded = [(image, mask) for images, masks in loader for image, mask in zip(images, masks, strict=True)]
        for index, (image, mask) in enumerate(loaded):
            expected = train[index]
            assert torch.equal(image, expected[0]) and torch.equal(mask, expected[1])


def test_what_workers_read_is_in_the_cache_of_all():
    source = CachedSource(CountedSource(), (8, 9))
    loader = DataLoader(source, batch_size=None, num_workers=2, multiprocessing_context="fork")
    list(loader)
    assert source[3][1].unique().tolist() == [6]
    assert source._source.made == []  # filled by the workers, not by this process


def test_cache_makes_each_sample_once_and_hands_out_copies():
    counted = CountedSource()
    source = CachedSource(counted, (8, 9))
    source[2][0].zero_()
    assert source[2][0].unique().tolist() == [2] and source.mask(2).unique().tolist() == [4]
    assert counted.made == [2]


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))])
def test_a_cached_source_can_be_sent_to_a_process(duplicate):
    source = CachedSource(street().source("test"), SIZE)
    image, mask = source[1]
    other = duplicate(source)
    assert len(other) == 2 and torch.equal(other[1][0], image) and torch.equal(other[1][1], mask)


def test_settings_stay_comparable_after_use():
    data = street()
    data.class_frequencies()
    assert data == street() and dataclasses.replace(data, seed=1) != data
    data.class_frequencies().zero_()
    assert data.class_frequencies().sum() == pytest.approx(1)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 6))
def test_shift_and_flip_move_image_and_mask_together(seed, shift):
    mask = torch.randint(0, 5, (12, 20), dtype=torch.uint8)
    image = torch.stack([mask + 10] * 3)  # the picture shows the mask
    pair = torchvision.tv_tensors.Image(image), torchvision.tv_tensors.Mask(mask)
    with seeded(seed):
        moved, moved_mask = Augmentation(shift=shift).build(255)(*pair)
    assert moved.shape == image.shape and moved_mask.shape == mask.shape
    outside = moved_mask == 255
    assert (moved[:, outside] == 0).all()
    assert (moved[0][~outside] == moved_mask[~outside] + 10).all()
    assert outside.sum() <= 20 * shift + 12 * shift


def test_shift_covers_its_whole_range():
    column = torch.zeros(9, 9, dtype=torch.uint8)
    column[4, 4] = 1
    places = set()
    for seed in range(200):
        with seeded(seed):
            moved = Augmentation(flip=0, shift=1).build(255)(torchvision.tv_tensors.Mask(column))
        places.add(tuple(torch.nonzero(moved == 1)[0].tolist()))
    assert places == {(row, col) for row in (3, 4, 5) for col in (3, 4, 5)}


def test_no_augmentation_is_the_identity():
    train = street(augmentation=Augmentation(flip=0, shift=0)).train()
    assert torch.equal(to_picture(train[0][0]), train.source[0][0])


@pytest.mark.parametrize(
    ("field", "value"),
    [("flip", 1.5), ("shift", -1), ("scale", (1.2, 0.8)), ("scale", (0.0, 1.0)), ("contrast", -0.1), ("brightness", 2)],
)
def test_augmentation_out_of_range_is_refused(field, value):
    with pytest.raises(RecipeError, match=f"augmentation.{field}"):
        Augmentation(**{field: value})


def test_picture_undoes_normalise_and_colours_follow_the_palette():
    image = torch.randint(0, 256, (2, 3, 4, 5), dtype=torch.uint8)
    assert torch.equal(to_picture(normalise(image)), image)
    mask = torch.tensor([[0, 1], [255, 7]])
    colours = to_colours(mask, ((1, 2, 3), (4, 5, 6)))
    assert colours.shape == (3, 2, 2)
    assert colours.movedim(0, -1).tolist() == [[[1, 2, 3], [4, 5, 6]], [[0, 0, 0], [0, 0, 0]]]


class OwnSource:
    """Two samples, the second with what is asked for."""

    def __init__(self, image, mask, count):
        self.sample, self.count = (image, mask), count

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        good = torch.zeros(3, 8, 9, dtype=torch.uint8), torch.full((8, 9), 255, dtype=torch.uint8)
        return self.sample if index else good

    def mask(self, index):
        return self[index][1]


class Own(SegmentationData):
    """Scenes of one's own, of two classes."""

    class_names, palette, size, seed = ("road", "other"), ((0, 0, 0), (9, 9, 9)), (8, 9), 0
    augmentation = Augmentation(flip=0.0)

    def __init__(self, source, cache):
        self.given, self.cache = source, cache

    def source(self, split):
        return self.given


IMAGE, MASK = torch.zeros(3, 8, 9, dtype=torch.uint8), torch.ones(8, 9, dtype=torch.uint8)


@pytest.mark.parametrize(
    ("image", "mask", "count", "message"),
    [
        (IMAGE, MASK * 7, 2, r"mask of sample 1 holds the value 7: .* one of 0, 1, 255"),
        (IMAGE.float(), MASK, 2, r"float32 \[3, 8, 9\]: a source gives pixels.*uint8"),
        (IMAGE, MASK, 0, "train split of Own holds no sample"),
        (IMAGE, MASK.long() + 256, 2, r"mask is int64 \[8, 9\]: .*one size, here \[8, 9\], the mask as uint8"),
        (IMAGE, MASK.float(), 2, r"mask is float32 \[8, 9\]"),
        (IMAGE, MASK[0], 2, r"size \[8, 9\], its mask is uint8 \[9\]"),
        (IMAGE, MASK.numpy(), 2, "its mask is ndarray"),
        (IMAGE.numpy(), MASK, 2, "an image of the data set is ndarray: a source gives pixels"),
        (object(), MASK, 2, "an image of the data set is object: a source gives pixels"),
        (IMAGE[:, :4], MASK, 2, r"size \[4, 9\], its mask is uint8 \[8, 9\]"),
        (IMAGE.to("meta"), MASK, 2, r"an image of the data set is uint8 \[3, 8, 9\] on meta"),
        (IMAGE.to_sparse(), MASK, 2, r"an image of the data set is uint8 \[3, 8, 9\] \(sparse_coo\)"),
        (IMAGE[:, :0], MASK[:0], 2, r"an image of the data set is uint8 \[3, 0, 9\]"),
        (IMAGE, MASK.to("meta"), 2, r"its mask is uint8 \[8, 9\] on meta"),
    ],
)
@pytest.mark.parametrize("cache", [False, True])
def test_what_a_source_may_not_give_is_named(image, mask, count, message, cache):
    with pytest.raises(DataError, match=message):
        Own(OwnSource(image, mask, count), cache=cache).train()[1]


def test_a_cache_that_no_memory_holds_is_refused():
    with pytest.raises(DataError, match=r"2 samples of 4 x 10000000 x 10000000 bytes .*data\.cache: false"):
        CachedSource(OwnSource(IMAGE, MASK, 2), (10**7, 10**7))


class SameSource(OwnSource):
    """One sample over and over."""

    def __getitem__(self, index):
        return self.sample


class Background(Own):
    """Scenes whose class 0 is background, which counts for nothing."""

    class_names, palette, ignore_index = ("background", "room", "door"), ((0, 0, 0), (9, 9, 9), (5, 5, 5)), 0


def test_a_class_that_is_ignored_has_no_share():
    mask = torch.zeros(8, 9, dtype=torch.uint8)
    mask[:2], mask[2, :6] = 1, 2
    data = Background(SameSource(IMAGE, mask, 3), cache=False)
    assert data.class_frequencies().tolist() == pytest.approx([0, 18 / 24, 6 / 24])
    with pytest.raises(DataError, match=r"holds the value 7: .* one of 0, 1, 2$"):
        Background(SameSource(IMAGE, MASK * 7, 1), cache=False).train()[0]


@pytest.mark.parametrize("value", [-1, -100, 256, 2.0, "void"])
def test_a_value_that_no_mask_can_hold_is_not_ignored(value):
    data = Own(SameSource(IMAGE, MASK, 1), cache=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Own, "ignore_index", value)
        for use in (data.train, data.class_frequencies):
            with pytest.raises(DataError, match=rf"ignore_index of Own is {value!r}.*from 0 to 255"):
                use()


@pytest.mark.parametrize(
    "mask", [MASK.numpy(), object(), None, MASK.long(), MASK[0]], ids=lambda mask: type(mask).__name__
)
def test_a_mask_alone_that_is_none_is_named(mask):
    with pytest.raises(DataError, match=r"the mask of sample 0 is .*: a source gives uint8 \[H, W\]"):
        Background(SameSource(IMAGE, mask, 1), cache=False).class_frequencies()


class Raising(Own):
    """Scenes of one's own whose code fails somewhere."""

    def __init__(self, where, cache):
        super().__init__(SameSource(IMAGE, MASK, 2), cache)
        self.where = where

    def source(self, split):
        if self.where == "source":
            raise KeyError("no such folder")
        return RaisingSource(self.where)


class RaisingSource(SameSource):
    def __init__(self, where):
        super().__init__(IMAGE, MASK, 2)
        self.where = where

    def __len__(self):
        return self.fail("len") or 2

    def __getitem__(self, index):
        return self.fail("sample") or self.sample

    def mask(self, index):
        return self.fail("mask") or self.sample[1]

    def fail(self, here):
        if self.where == here:
            raise ValueError("no such file")


@pytest.mark.parametrize("cache", [False, True])
@pytest.mark.parametrize(
    ("where", "message"),
    [
        (
            "source",
            r"the train split of Raising cannot be read: .* KeyError: 'no such folder' \(.*test_.*, in source\)",
        ),
        ("len", r"the train split of Raising cannot be read: .* ValueError: no such file \(.*, line \d+, in fail\)"),
        ("sample", r"sample 1 cannot be read: .* ValueError: no such file"),
    ],
)
def test_what_a_source_raises_is_named_with_its_place(where, message, cache):
    with pytest.raises(DataError, match=message):
        Raising(where, cache).train()[1]


def test_what_a_source_raises_for_a_mask_is_named():
    with pytest.raises(DataError, match=r"the mask of sample 0 cannot be read: .* ValueError: no such file"):
        Raising("mask", False).class_frequencies()


@pytest.mark.parametrize(("sample", "found"), [(IMAGE, "uint8"), ((IMAGE,), "tuple of 1"), (None, "NoneType")])
def test_a_sample_that_is_no_pair_is_named(sample, found):
    source = SameSource(IMAGE, MASK, 2)
    source.sample = sample
    with pytest.raises(DataError, match=rf"sample 0 is {found}.*: a source gives a pair"):
        Own(source, cache=False).train()[0]
