"""The processes of a new attempt find each other, whatever an earlier one left in the store."""

import contextlib
import threading
import time

import pytest
from torch.distributed import HashStore

from prunus.errors import TrainingError
from prunus.train.rendezvous import agreed

COUNT = 3


def attempt(store, order, wait_s=0.05):
    """Let `COUNT` processes come in this order, each a little after the one before; return what each believes."""
    names = {}
    threads = []
    for rank in order:
        thread = threading.Thread(target=lambda rank=rank: names.update({rank: agreed(store, rank, COUNT, 10)}))
        thread.start()
        threads.append(thread)
        time.sleep(wait_s)
    for thread in threads:
        thread.join()
    return [names[rank] for rank in range(COUNT)]


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2)])
def test_each_attempt_has_one_name_of_its_own(order):
    store = HashStore()
    found = [attempt(store, order) for _ in range(3)]
    assert all(len(set(names)) == 1 for names in found)
    assert len({names[0] for names in found}) == 3


def test_an_attempt_that_lost_a_process_on_the_way_leaves_nothing_that_is_believed():
    store = HashStore()

    def gives_up(rank):
        with contextlib.suppress(TrainingError):
            agreed(store, rank, COUNT, 0.3)

    early = [threading.Thread(target=gives_up, args=[rank]) for rank in (0, 1)]  # process 2 never comes
    for thread in early:
        thread.start()
    for thread in early:
        thread.join()
    left = store.get("attempt").decode()
    names = attempt(store, (2, 1, 0))
    assert len(set(names)) == 1 and names[0] != left


def test_who_waits_in_vain_says_for_whom():
    with pytest.raises(TrainingError, match=r"process 1 did not answer process 0 within 0.1 s .*timeout_s"):
        agreed(HashStore(), 0, COUNT, 0.1)
    with pytest.raises(TrainingError, match="process 0 did not answer process 2"):
        agreed(HashStore(), 2, COUNT, 0.1)
