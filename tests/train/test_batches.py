import multiprocessing

import pytest
import tiny
import torch

from prunus.errors import DataError
from prunus.train.batches import Batches, evaluation_batches, steps_per_epoch, training_batches


def indices(num, size, seed=0, epoch=0, skip=0):
    order = torch.randperm(num, generator=torch.Generator().manual_seed(seed * 1_000_003 + epoch))
    batches = Batches(order, size, skip)
    assert len(list(batches)) == len(batches)
    return list(batches)


def test_an_epoch_is_a_permutation_in_whole_batches():
    batches = indices(10, 4)
    assert [len(batch) for batch in batches] == [4, 4] and steps_per_epoch(10, 4) == 2
    flat = [index for batch in batches for index in batch]
    assert len(set(flat)) == 8 and set(flat) <= set(range(10))
    assert indices(10, 4, skip=1) == batches[1:] and indices(10, 4, skip=2) == []


def test_a_set_smaller_than_a_batch_is_one_batch():
    assert sorted(indices(3, 4)[0]) == [0, 1, 2]
    assert steps_per_epoch(3, 4) == 1


def test_the_order_follows_from_seed_and_epoch_alone():
    def order(seed, epoch):
        settings = type(tiny.TRAIN)(batch_size=4, device="cpu")
        return [masks.sum() for _, masks in training_batches(tiny.DATA.train(), settings, seed, epoch, skip=0)]

    torch.manual_seed(1)
    first = order(3, 2)
    torch.manual_seed(2)
    assert order(3, 2) == first
    assert order(3, 3) != first != order(4, 2)


def test_no_samples():
    with pytest.raises(DataError, match="training split is empty"):
        steps_per_epoch(0, 4)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_an_epoch_taken_up_in_its_middle_goes_on_with_the_same_batches(num_workers):
    settings = type(tiny.TRAIN)(batch_size=4, num_workers=num_workers, device="cpu")
    whole = list(training_batches(tiny.DATA.train(), settings, seed=0, epoch=1, skip=0))
    rest = list(training_batches(tiny.DATA.train(), settings, seed=0, epoch=1, skip=3))
    assert len(whole) == 4 and len(rest) == 1
    assert torch.equal(whole[3][0], rest[0][0]) and torch.equal(whole[3][1], rest[0][1])
    assert list(training_batches(tiny.DATA.train(), settings, seed=0, epoch=1, skip=4)) == []


def test_loading_leaves_the_random_state_alone():
    """Dropout draws from it: a training that loads once more after a resume would go another way."""
    before = torch.get_rng_state()
    list(training_batches(tiny.DATA.train(), tiny.TRAIN, seed=0, epoch=0, skip=0))
    list(evaluation_batches(tiny.DATA.validation(), tiny.TRAIN))
    assert torch.equal(torch.get_rng_state(), before)


def test_evaluation_sees_every_sample_once_in_order():
    masks = torch.cat([mask for _, mask in evaluation_batches(tiny.DATA.validation(), tiny.TRAIN)])
    expected = torch.stack([tiny.DATA.validation()[i][1] for i in range(tiny.DATA.num_validation)])
    assert torch.equal(masks, expected)
    uneven = type(tiny.TRAIN)(batch_size=3)
    assert [len(mask) for _, mask in evaluation_batches(tiny.DATA.validation(), uneven)] == [3, 1]


class Broken:
    """A split with a damaged file."""

    def __len__(self):
        return 4

    def __getitem__(self, index):
        raise DataError("train/1.png is damaged: fetch it again")

    def set_epoch(self, epoch):
        pass

    def order(self, generator):
        return torch.arange(4)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_an_error_of_the_data_reads_the_same_from_a_worker(num_workers):
    settings = type(tiny.TRAIN)(batch_size=2, num_workers=num_workers, device="cpu")
    with pytest.raises(DataError) as error:
        list(training_batches(Broken(), settings, seed=0, epoch=0, skip=0))
    assert str(error.value) == "train/1.png is damaged: fetch it again"


class Odd(Broken):
    """A user's own data set, of samples that are anything."""

    def __init__(self, sample):
        self.sample = sample

    def __getitem__(self, index):
        return self.sample(index)


IMAGE = torch.zeros(3, 4, 4)


def missing(index):
    return {}["no such key"]


ODD = {
    "missing": (missing, r"KeyError: 'no such key'"),
    "object": (lambda index: (IMAGE, object()), "TypeError: .*object"),
    "sizes": (lambda index: (torch.zeros(3, 4, 4 + index), 0), "RuntimeError: .*equal size"),
    "names": (
        lambda index: (IMAGE, {"boxes": IMAGE, "name": "cat"}),
        "a list of Tensor, dict, and training takes.*for several tasks, a dictionary",
    ),
    "text": (lambda index: (IMAGE, "cat"), "a list of Tensor, (tuple|list), and training takes"),
    "three": (lambda index: (IMAGE, 1, 2), "a list of Tensor, Tensor, Tensor, and training takes"),
    "dict": (lambda index: {"image": IMAGE, "label": 1}, "a dict, and training takes"),
}
CASES = [(0, name) for name in ODD] + [(1, "missing"), (1, "sizes")]  # an error of its own, and one of a batch


@pytest.mark.parametrize(("num_workers", "name"), CASES)
def test_samples_that_are_no_pair_of_tensors_are_named(num_workers, name):
    sample, message = ODD[name]
    settings = type(tiny.TRAIN)(batch_size=2, num_workers=num_workers, device="cpu")
    both = (training_batches(Odd(sample), settings, 0, 0, 0), evaluation_batches(Odd(sample), settings))
    for batches in both[: 1 if num_workers else 2]:
        with pytest.raises(DataError, match=message) as error:
            list(batches)
        assert "Traceback" not in str(error.value)
        assert not multiprocessing.active_children()  # though the error is kept


def test_a_dictionary_of_targets_is_a_target():
    settings = type(tiny.TRAIN)(batch_size=2, num_workers=0, device="cpu")
    sample = Odd(lambda index: (IMAGE, {"boxes": IMAGE, "label": index}))
    (images, target), *_ = evaluation_batches(sample, settings)
    assert images.shape == (2, 3, 4, 4) and target["boxes"].shape == (2, 3, 4, 4) and target["label"].tolist() == [0, 1]


def test_a_number_is_a_target():
    settings = type(tiny.TRAIN)(batch_size=2, device="cpu")
    batches = list(evaluation_batches(Odd(lambda index: (IMAGE, index)), settings))
    assert [target.tolist() for _, target in batches] == [[0, 1], [2, 3]]
