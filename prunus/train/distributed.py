"""Join the processes that torchrun started, through accelerate, and poll them without waiting.

torchrun --nproc-per-node 8 -m prunus.cli run recipe.yaml
"""

import contextlib
import datetime
import os
from collections.abc import Iterator

import torch
from torch import Tensor

from prunus.shrink.processes import ALONE, Processes, message_device
from prunus.train.rendezvous import own_store


class Question:
    """Ask repeatedly whether any process has raised its flag, without waiting for the others.

    With several processes the reduction runs during the next step, so all get the answer one step later, at the
    same step. A single process gets it at once.
    """

    def __init__(self, processes: Processes) -> None:
        self.processes = processes
        self.travelling: tuple[Tensor, torch.distributed.Work] | None = None

    def ask(self, flag: bool) -> bool:
        """Start a poll, and return whether any process had raised its flag at the previous poll."""
        if self.processes.count == 1:
            return flag
        before = self.travelling
        raised = torch.tensor([float(flag)], device=message_device())
        self.travelling = raised, torch.distributed.all_reduce(raised, async_op=True)
        if before is None:
            return False
        answer, work = before
        work.wait()
        return bool(answer > 0)


def is_first() -> bool:
    """Whether this is process 0, by torchrun's environment, so even before the processes are joined."""
    return int(os.environ.get("RANK", "0")) == 0


@contextlib.contextmanager
def joined(device: torch.device, timeout_s: float) -> Iterator[Processes]:
    """Join the processes that torchrun started with this one; without torchrun, this one is alone.

    Args:
        device: the device to train on; "cuda" becomes the device of this process's local rank.
        timeout_s: seconds after which a process that does not answer fails the others, so that torchrun restarts all.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield ALONE
        return
    from accelerate import PartialState

    kwargs = {"rank": int(os.environ["RANK"]), "world_size": int(os.environ["WORLD_SIZE"])}
    timeout = datetime.timedelta(seconds=timeout_s)
    state = PartialState(cpu=device.type == "cpu", store=own_store(timeout_s), timeout=timeout, **kwargs)
    yield Processes(state.process_index, state.num_processes)
    state.destroy_process_group()  # not after an error: it would wait for processes that are gone
