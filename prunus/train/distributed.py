"""Several processes that train one network, through accelerate: on one machine or many, started by torchrun.

    torchrun --nproc-per-node 8 -m prunus.cli run recipe.yaml

Every process holds the whole network and takes its part of each batch; gradients are averaged (DDP). Process 0
decides, writes and prints; the others receive its decisions. One process alone is the common case: then every method
returns its argument, and accelerate is not used.
"""

import contextlib
import dataclasses
import datetime
import hashlib
import os
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from prunus.errors import PrunusError, TrainingError
from prunus.train.rendezvous import own_store

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Processes:
    """The processes of a training, as seen by number `index` of `count`."""

    index: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        """Whether this is process 0, which decides, writes and prints."""
        return self.index == 0

    def part(self, indices: list[int]) -> list[int]:
        """Return this process's part of `indices`: every `count`-th."""
        return indices[self.index :: self.count]

    def share(self, value: T) -> T:
        """Return the value that process 0 passed."""
        if self.count == 1:
            return value
        from accelerate.utils import broadcast_object_list

        box: list[Any] = [value]
        broadcast_object_list(box, from_process=0)
        return box[0]  # type: ignore[no-any-return]

    def once(self, compute: Callable[[], T]) -> T:
        """Return the result of `compute`, called in process 0 alone; all processes raise its `PrunusError`."""
        if self.count == 1:
            return compute()
        found: T | PrunusError | None = None
        if self.first:
            try:
                found = compute()
            except PrunusError as error:
                found = error
        found = self.share(found)
        if isinstance(found, PrunusError):
            raise found
        return found  # type: ignore[return-value]

    def gather(self, value: T) -> list[T]:
        """Return the values that all processes passed, in their order."""
        if self.count == 1:
            return [value]
        from accelerate.utils import gather_object

        return list(gather_object([value]))

    def any(self, flag: bool) -> bool:
        """Whether some process passed True."""
        return flag if self.count == 1 else bool(self._sum(float(flag)) > 0)

    def mean(self, number: float) -> float:
        """Return the mean over the processes."""
        return number if self.count == 1 else self._sum(number) / self.count

    def _sum(self, number: float) -> float:
        from accelerate.utils import reduce

        return float(reduce(torch.tensor([number], dtype=torch.float64, device=_device()), reduction="sum"))

    def wrapped(self, model: nn.Module) -> nn.Module:
        """Return the module that a training step calls: `model` with gradients averaged over the processes."""
        return model if self.count == 1 else DistributedDataParallel(model)

    def sync_buffers_(self, model: nn.Module) -> None:
        """Copy the buffers of process 0 to all, such as BatchNorm's means: each process has seen other images."""
        if self.count == 1:
            return
        for dtype in dict.fromkeys(buffer.dtype for buffer in model.buffers()):  # a message per dtype, not per buffer
            buffers = [buffer for buffer in model.buffers() if buffer.dtype == dtype]
            message = torch.cat([buffer.flatten() for buffer in buffers])
            torch.distributed.broadcast(message, src=0)
            parts = torch.split(message, [buffer.numel() for buffer in buffers])
            for buffer, part in zip(buffers, parts, strict=True):
                buffer.copy_(part.view_as(buffer))

    def require_same(self, when: str, model: nn.Module, plan: str) -> None:
        """Compare the plan and the weights of all processes, by their SHA-256.

        Raises:
            TrainingError: in every process; names the tensors and the processes that differ.
        """
        if self.count == 1:
            return
        own = {"the plan": hashlib.sha256(plan.encode()).hexdigest()}
        own |= {path: _digest(tensor) for path, tensor in model.state_dict().items()}
        total = hashlib.sha256(repr(own).encode()).hexdigest()
        if len(set(self.gather(total))) == 1:
            return
        every = self.gather(own)
        others = [index for index, digests in enumerate(every) if digests != every[0]]
        differing = [path for path in every[0] if any(every[index].get(path) != every[0][path] for index in others)]
        raise TrainingError(
            f"{when}, the processes no longer hold the same network: {', '.join(differing[:5])}"
            f"{f' and {len(differing) - 5} more' if len(differing) > 5 else ''} of process "
            f"{', '.join(map(str, others))} differ from process 0. The run stops; its checkpoints are of process 0. "
            "Do all machines have the same version of torch and Prunus and the same kind of accelerator?"
        )


class Question:
    """Whether some process has raised its flag, polled repeatedly without waiting for the others.

    Between several processes the reduction runs during the next step, so that all get the answer one step later, at the
    same place. One process alone gets it at once.
    """

    def __init__(self, processes: Processes) -> None:
        self.processes = processes
        self.travelling: tuple[Tensor, torch.distributed.Work] | None = None

    def ask(self, flag: bool) -> bool:
        """Start a poll, and return whether some process had raised its flag at the previous one."""
        if self.processes.count == 1:
            return flag
        before = self.travelling
        raised = torch.tensor([float(flag)], device=_device())
        self.travelling = raised, torch.distributed.all_reduce(raised, async_op=True)
        if before is None:
            return False
        answer, work = before
        work.wait()
        return bool(answer > 0)


ALONE = Processes()


def is_first() -> bool:
    """Whether this is process 0, known before the processes are joined, from torchrun's environment."""
    return int(os.environ.get("RANK", "0")) == 0


@contextlib.contextmanager
def joined(device: torch.device, timeout_s: float) -> Iterator[Processes]:
    """Join the processes that torchrun started with this one; without torchrun, this one is alone.

    Args:
        device: to train on; "cuda" becomes the device of this process's local number.
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


def _device() -> torch.device:
    from accelerate import PartialState

    device: torch.device = PartialState().device
    return device


def _digest(tensor: Tensor) -> str:
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return hashlib.sha256(flat.view(torch.uint8).numpy().data).hexdigest()
