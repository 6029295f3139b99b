"""Training settings: the recipe's `train` and `optimizer`."""

import dataclasses
import math
from collections.abc import Iterable
from typing import Literal

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from prunus.errors import RecipeError, TrainingError

MOST_PROCESSES = 1024  # or threads: a larger number is a typing error


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizerSettings:
    """The optimizer. As usual, `weight_decay` excludes biases and normalisations."""

    name: Literal["sgd", "adam", "adamw"] = "adam"
    learning_rate: float = 5e-4
    weight_decay: float = 1e-4
    momentum: float = 0.9  # of SGD, with Nesterov's correction

    def __post_init__(self) -> None:
        finite = 0 < self.learning_rate < math.inf and 0 <= self.weight_decay < math.inf
        if not finite or not 0 <= self.momentum < 1:
            raise RecipeError(
                f"optimizer: learning_rate {self.learning_rate} must be above zero, weight_decay {self.weight_decay} "
                f"zero or more, both finite, momentum {self.momentum} in [0, 1)"
            )

    def build(self, model: nn.Module) -> Optimizer:
        """Return the optimizer of `model`'s trainable parameters.

        Raises:
            TrainingError: no parameter is trainable.
        """
        trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
        if not trainable:
            raise TrainingError(
                f"{type(model).__name__} has no parameter to train: "
                f"{'all are frozen (requires_grad=False)' if list(model.parameters()) else 'it has none at all'}"
            )
        groups: Iterable[dict[str, object]] = [
            {"params": [p for p in trainable if p.dim() > 1], "weight_decay": self.weight_decay},
            {"params": [p for p in trainable if p.dim() <= 1], "weight_decay": 0.0},
        ]
        if self.name == "sgd":
            return torch.optim.SGD(groups, lr=self.learning_rate, momentum=self.momentum, nesterov=self.momentum > 0)
        kind = torch.optim.Adam if self.name == "adam" else torch.optim.AdamW
        return kind(groups, lr=self.learning_rate)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Train:
    """The training settings, the same for the wide and for the shrinking network."""

    epochs: int = 10
    batch_size: int = 4  # of all processes together
    grow_batch: bool = False  # into the memory that shrinking frees, with the learning rate
    optimizer: OptimizerSettings = OptimizerSettings()
    schedule: Literal["poly", "cosine", "step", "constant"] = "poly"  # of the learning rate, per epoch
    power: float = 0.9  # of "poly": (1 - epoch / epochs)^power (ERFNet)
    milestones: tuple[int, ...] = ()  # of "step": epochs done when the learning rate is multiplied by gamma
    gamma: float = 0.1
    warmup_epochs: float = 0.0  # the learning rate rises linearly, per step
    precision: Literal["float32", "bfloat16"] = "float32"  # of the forward pass, by autocast
    channels_last: bool = False  # lay out images as [N, H, W, C]: faster where no layer calls `view` on them
    ema_decay: float | None = None  # of an exponential moving average of the weights, evaluated in their place
    evaluate_every: int = 1  # epochs between evaluations
    checkpoint_every: int = 1  # epochs between checkpoints
    keep_checkpoints: int = 2  # the last ones, besides the best on the validation split
    num_workers: int = 0  # that load data; 0: the main process
    device: str = "auto"  # "auto": CUDA where available
    threads: int | None = None  # torch's CPU threads; null: torch's default
    timeout_s: float = 600.0  # after which a silent process fails the others, and torchrun restarts all

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "evaluate_every", "checkpoint_every", "keep_checkpoints"):
            if getattr(self, name) < 1:
                raise RecipeError(f"train.{name} is {getattr(self, name)}: it must be at least 1")
        for name in ("warmup_epochs", "num_workers", "power", "gamma"):
            if not 0 <= getattr(self, name) < math.inf:
                raise RecipeError(f"train.{name} is {getattr(self, name)}: it must be zero or more, and finite")
        if self.warmup_epochs > self.epochs:
            raise RecipeError(
                f"train.warmup_epochs is {self.warmup_epochs} of train.epochs {self.epochs}: the learning rate would "
                "never be reached: warm up for fewer epochs, or train for more"
            )
        if not self.timeout_s > 0 or (self.threads is not None and self.threads < 1):
            raise RecipeError(
                f"train.timeout_s is {self.timeout_s} and train.threads {self.threads}: seconds above zero, and at "
                "least one thread, or null"
            )
        if (self.schedule == "step") != bool(self.milestones) or min(self.milestones, default=1) < 1:
            raise RecipeError(
                f"train.milestones is {list(self.milestones)} with schedule {self.schedule}: name the epochs, from 1, "
                'after which the learning rate falls, with schedule "step" alone'
            )
        for name in ("threads", "num_workers"):
            if (getattr(self, name) or 0) > MOST_PROCESSES:
                raise RecipeError(
                    f"train.{name} is {getattr(self, name)}: at most {MOST_PROCESSES}, and as many as cores at best"
                )
        if self.ema_decay is not None and not 0 < self.ema_decay < 1:
            raise RecipeError(f"train.ema_decay is {self.ema_decay}: it must lie between 0 and 1")

    def torch_device(self) -> torch.device:
        """Return the device to train on."""
        if self.device == "auto":
            return torch.device("cuda" if torch.cuda.is_available() else "cpu")
        try:
            device = torch.device(self.device)
        except RuntimeError as error:
            raise RecipeError(f"train.device is {self.device!r}: torch knows no such device") from error
        try:
            there = device.type != "meta" and torch.zeros(1, device=device).sum().item() == 0
        except (RuntimeError, AssertionError, NotImplementedError):  # torch's error depends on the kind of device
            there = False
        if not there:
            raise RecipeError(f"train.device is {self.device!r}, and torch sees no such device here: take auto or cpu")
        return device

    @property
    def memory_format(self) -> torch.memory_format:
        """The memory format of images and kernels."""
        return torch.channels_last if self.channels_last else torch.preserve_format

    def factor(self, epoch: float) -> float:
        """Return the factor of the learning rate at `epoch`, from 0; fractions of an epoch only matter in warm-up."""
        if epoch < self.warmup_epochs:
            return max(epoch, 1e-3) / self.warmup_epochs
        if self.schedule == "step":
            return float(self.gamma ** sum(epoch >= milestone for milestone in self.milestones))
        done = math.floor(epoch) / self.epochs
        if self.schedule == "poly":
            return float((1 - done) ** self.power)
        return (1 + math.cos(math.pi * done)) / 2 if self.schedule == "cosine" else 1.0

    def scheduler(self, optimizer: Optimizer, steps_per_epoch: int) -> LambdaLR:
        """Return the learning rate schedule, to be advanced after each step."""
        return LambdaLR(optimizer, lambda step: self.factor(step / steps_per_epoch))
