"""Several processes that train one network, through torch.distributed: process 0 decides, the others follow.

Every process holds the whole network; gradients are averaged (DDP). With a single process, the common case, every
method returns its argument.
"""

import dataclasses
import hashlib
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from prunus.errors import PrunusError, TrainingError

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Processes:
    """The processes of a training, as seen by number `index` of `count`."""

    index: int = 0
    count: int = 1

    @classmethod
    def present(cls) -> "Processes":
        """Return the processes joined by torch.distributed; only this one where it is not initialised."""
        if not (distributed.is_available() and distributed.is_initialized()):
            return cls()
        return cls(distributed.get_rank(), distributed.get_world_size())

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
        box: list[Any] = [value]
        distributed.broadcast_object_list(box, src=0)
        return box[0]  # type: ignore[no-any-return]

    def once(self, compute: Callable[[], T]) -> T:
        """Return the result of `compute`, called only in process 0; every process raises its `PrunusError`."""
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
        every: list[Any] = [None] * self.count
        distributed.all_gather_object(every, value)
        return every

    def any(self, flag: bool) -> bool:
        """Whether any process passed True."""
        return flag if self.count == 1 else bool(self._sum(float(flag)) > 0)

    def mean(self, number: float) -> float:
        """Return the mean of `number` over the processes."""
        return number if self.count == 1 else self._sum(number) / self.count

    def _sum(self, number: float) -> float:
        total = torch.tensor([number], dtype=torch.float64, device=message_device())
        distributed.all_reduce(total)
        return float(total)

    def wrapped(self, model: nn.Module) -> nn.Module:
        """Return the module that a training step calls: `model` with gradients averaged over the processes."""
        return model if self.count == 1 else DistributedDataParallel(model)

    def sync_buffers_(self, model: nn.Module) -> None:
        """Copy the buffers of process 0, such as BatchNorm's means, to all: each process has seen other images."""
        if self.count == 1:
            return
        for dtype in dict.fromkeys(buffer.dtype for buffer in model.buffers()):  # one message per dtype
            buffers = [buffer for buffer in model.buffers() if buffer.dtype == dtype]
            message = torch.cat([buffer.flatten() for buffer in buffers])
            distributed.broadcast(message, src=0)
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
            f"{when}, the processes no longer hold the same network: "
            f"{', '.join(differing[:5])}{f' and {len(differing) - 5} more' if len(differing) > 5 else ''} of process "
            f"{', '.join(map(str, others))} differ from process 0. The run stops; its checkpoints are of process 0. "
            "Do all machines have the same version of torch and Prunus and the same kind of accelerator? In a loop "
            "of your own, is DistributedDataParallel wrapped again after each cut?"
        )

    def require_same_gradients(self, model: nn.Module) -> None:
        """Compare the gradients of all processes, by their sums.

        Raises:
            TrainingError: in every process; they differ, so they are not averaged.
        """
        if self.count == 1:
            return
        own = [(path, float(p.grad.double().sum())) for path, p in model.named_parameters() if p.grad is not None]
        every = self.gather(own)
        differing = {path for other in every[1:] for path, _ in set(other) ^ set(every[0])}
        if differing:
            raise TrainingError(
                f"in the first step after a cut the processes have different gradients ({min(differing)} and "
                f"{len(differing) - 1} more): DistributedDataParallel still averages those of the former shapes. Wrap "
                "the network again where shrinker.step() returns a record: network = DistributedDataParallel(model)"
            )


ALONE = Processes()


def message_device() -> torch.device:
    """Return the device for tensors that processes send each other."""
    on_gpu = "nccl" in distributed.get_backend()
    return torch.device("cuda", torch.cuda.current_device()) if on_gpu else torch.device("cpu")


def _digest(tensor: Tensor) -> str:
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return hashlib.sha256(flat.view(torch.uint8).numpy().data).hexdigest()
