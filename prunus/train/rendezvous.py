"""Rendezvous of the processes of one attempt, under a prefix of torchrun's store that no earlier attempt has used.

torchrun's store outlives a restart, and so do the addresses that dead processes left in it: a process that starts
before its peers reads these, and is refused (pytorch/pytorch issues 135712 and 167288). The restart count does not
identify an attempt, since each machine counts its own. Therefore process 0 draws a name; the others answer under it,
each with a word that it drew itself, and accept the name once process 0, which must then be alive, returns the word:

    process 0              process r
    attempt = name    -->
                      <--  name/r = word
    name/r/heard = word -> everything from here on under name/
"""

import datetime
import os
import time
import uuid

from torch.distributed import PrefixStore, Store, TCPStore  # type: ignore[attr-defined]

from prunus.errors import TrainingError

PAUSE_S = 0.02


def own_store(timeout_s: float) -> Store:
    """Return the store of this attempt's processes, as torchrun's environment variables describe them.

    Raises:
        TrainingError: the others did not arrive within `timeout_s` seconds.
    """
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    rank, count = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    hosts = rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    timeout = datetime.timedelta(seconds=timeout_s)
    store = TCPStore(address, port, count, is_master=hosts, timeout=timeout, multi_tenant=True)
    return PrefixStore(agreed(store, rank, count, timeout_s), store)


def agreed(store: Store, rank: int, count: int, timeout_s: float) -> str:
    """Return the name that the `count` live processes agree on, whatever earlier attempts left in `store`."""
    end = time.monotonic() + timeout_s
    word = uuid.uuid4().hex
    if rank > 0:
        while _read(store, f"{(name := _read(store, 'attempt'))}/{rank}/heard") != word:
            store.set(f"{name}/{rank}", word)
            _pause(end, timeout_s, f"process 0 did not answer process {rank}")
        return name
    store.set("attempt", word)
    for other in range(1, count):
        while not (heard := _read(store, f"{word}/{other}")):
            _pause(end, timeout_s, f"process {other} did not answer process 0")
        store.set(f"{word}/{other}/heard", heard)
    return word


def _read(store: Store, key: str) -> str:
    return store.get(key).decode() if store.check([key]) else ""


def _pause(end: float, timeout_s: float, what: str) -> None:
    if time.monotonic() > end:
        raise TrainingError(
            f"{what} within {timeout_s:g} s of the start (train.timeout_s), at torchrun's store "
            f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}. Have all machines started, "
            "with the same number of processes, and can they reach this address?"
        )
    time.sleep(PAUSE_S)
