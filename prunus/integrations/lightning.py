"""`Shrink`, a callback of Lightning's Trainer.

shrink = Shrink(example, budget=prunus.Budget(macs=0.4), part="network")
trainer = lightning.Trainer(max_epochs=20, callbacks=[shrink])
trainer.fit(module, loader)   # and trainer.fit(module, loader, ckpt_path="last")
"""

import gc
import math
import warnings
from pathlib import Path
from typing import Any, final

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from prunus import compat  # noqa: F401 - torchvision beside a CPU-only torch, before lightning imports it
from prunus.budget import Budget
from prunus.decoding import DecodingError
from prunus.errors import CheckpointError, TrainingError
from prunus.integrations.running import Running, plan_in
from prunus.models.weight_file import read_content
from prunus.modules.given import Inputs
from prunus.modules.paths import module_at
from prunus.surgery import Plan, apply

try:
    from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint
    from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
except ImportError as error:
    raise ImportError("prunus.integrations.lightning needs lightning: pip install 'prunus[lightning]'") from error

KEY = "prunus_shrinker"  # of the Shrinker's state in checkpoints


@final
class Shrink(Callback):  # type: ignore[misc]
    """Shrink the module, or a part of it, to a budget while the Trainer trains it.

    The network stays the same object; DDP is wrapped around it anew after each cut; averages kept by other callbacks
    become narrower with it. Each checkpoint holds the Shrinker's state, so `ckpt_path` continues bit for bit. The best
    checkpoint of a `ModelCheckpoint` is the best one since the last cut, and early stopping counts from there.

    Refused by name: manual optimization, and strategies other than one device and DDP.
    """

    def __init__(self, example: Inputs, *, budget: Budget, part: str = "", **settings: Any) -> None:
        """Store the settings.

        Args:
            example: the network's positional arguments; a tensor stands for a tuple of one.
            budget: bounds on the final network's cost.
            part: path of the network in the module, such as "network"; "": the module itself.
            settings: `pace`, `begin`, `end`, `every`, `settled`, `keep`, `kwargs` and `meter` of `prunus.Shrinker`.
        """
        self._running = Running(part, example, {"budget": budget, **settings})
        self._length = dict[str, int]()

    @property
    def plan(self) -> Plan:
        """All cuts so far, as edits of the network as built; `prunus.save` takes this plan."""
        return self._running.plan

    def follow(self, copy: nn.Module) -> None:
        """Make a copy of the network, such as an average of its weights, narrower along with it."""
        self._running.follow(copy)

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Hook into checkpoint loading: Lightning loads the weights before it calls callbacks."""
        if stage != "fit":
            return
        on_load_checkpoint = pl_module.on_load_checkpoint

        def narrow_first(checkpoint: dict[str, Any]) -> None:
            self._go_on(trainer, pl_module, checkpoint)
            on_load_checkpoint(checkpoint)

        pl_module.on_load_checkpoint = narrow_first

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Remove the hook from the module."""
        vars(pl_module).pop("on_load_checkpoint", None)

    def _go_on(self, trainer: Any, module: Any, checkpoint: dict[str, Any]) -> None:
        state = checkpoint.get(KEY)
        if state is None:
            raise CheckpointError(f"the checkpoint has no {KEY!r}: it was written without Shrink; start again")
        self._length = {state["unit"]: state["length"]}
        self._follow_averages(trainer)
        self._running.narrow(module, state, **self._length)

    def _follow_averages(self, trainer: Any) -> None:
        for callback in trainer.callbacks:
            for value in vars(callback).values():
                if isinstance(value, AveragedModel):
                    self.follow(self._running.network(value.module))

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        """Read the network, or continue with that of the checkpoint."""
        _refuse(trainer, pl_module)
        length = _length(trainer)
        if self._length not in ({}, length):
            raise CheckpointError(
                f"the checkpoint is of a training of {_told(self._length)}, and this one has {_told(length)}: give as "
                "many, so that the budget is met at the same share of them"
            )
        if not self._length:
            self._follow_averages(trainer)
        self._running.begin(pl_module, trainer.optimizers[0], **length)
        self._length = length

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *others: Any) -> None:
        """Press channels after each optimizer step, and remove zero channels at the end of a segment."""
        if self._running.now().step() is not None:
            _after_cut(trainer)

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """End a period with the epoch if the number of steps is unknown."""
        if "epochs" in self._length and self._running.now().end_epoch() is not None:
            _after_cut(trainer)

    def on_save_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Put the Shrinker's state into the checkpoint."""
        if self._running.shrinker is not None:
            ((unit, length),) = self._length.items()
            checkpoint[KEY] = {**self._running.now().state_dict(), "unit": unit, "length": length}

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Warn if the training ended before the budget was reached."""
        shrinker, self._length = self._running.now(), {}
        if not shrinker.schedule.is_over(shrinker.clock):
            warnings.warn(
                f"the training ended after {trainer.global_step} steps, before the budget was reached: the network is "
                "still larger than the budget",
                stacklevel=2,
            )


def load_narrow(module: nn.Module, path: str | Path, part: str = "") -> nn.Module:
    """Return `module`, as built, with the narrow network and the weights of a checkpoint of `Shrink`.

    Args:
        module: as the training began with.
        path: path of the checkpoint, such as `ModelCheckpoint.best_model_path`; no code in it is run.
        part: as for `Shrink`.

    Raises:
        CheckpointError: the checkpoint cannot be read, holds code, was written without Shrink, or is of another module.
    """
    try:
        checkpoint = read_content(Path(path))
    except (OSError, DecodingError) as error:
        raise CheckpointError(f"the checkpoint {path} cannot be read: {error}") from error
    if KEY not in checkpoint or "state_dict" not in checkpoint:
        raise CheckpointError(f"the checkpoint {path} was written without Shrink among the Trainer's callbacks")
    plan = plan_in(checkpoint[KEY])
    if part:
        module.set_submodule(part, apply(plan, module_at(module, part)))
    else:
        module = apply(plan, module)
    try:
        module.load_state_dict(checkpoint["state_dict"])
    except RuntimeError as error:
        raise CheckpointError(f"the checkpoint {path} is of another module: {error}") from error
    return module


def _length(trainer: Any) -> dict[str, int]:
    steps = trainer.estimated_stepping_batches
    if 0 < steps < math.inf:
        return {"steps": int(steps)}
    if trainer.max_epochs is not None and trainer.max_epochs > 0:
        return {"epochs": trainer.max_epochs}
    raise TrainingError("Shrink: the length of the training is not known: give the Trainer max_epochs or max_steps")


def _told(length: dict[str, int]) -> str:
    return " ".join(f"{number} {unit}" for unit, number in length.items())


def _after_cut(trainer: Any) -> None:
    """Wrap DDP anew, and drop the scores of wider networks."""
    strategy = trainer.strategy
    if isinstance(strategy, DDPStrategy):
        strategy.model = trainer.lightning_module
        gc.collect()  # the former wrapper's hooks go with it
        strategy.configure_ddp()
    for callback in trainer.callbacks:
        if isinstance(callback, ModelCheckpoint | EarlyStopping):
            worst = torch.tensor(torch.inf if callback.mode == "min" else -torch.inf)
        if isinstance(callback, ModelCheckpoint):
            callback.best_k_models, callback.best_model_score, callback.best_model_path = {}, None, ""
            callback.kth_best_model_path, callback.kth_value = "", worst
        elif isinstance(callback, EarlyStopping):
            callback.best_score, callback.wait_count = worst, 0


def _refuse(trainer: Any, module: Any) -> None:
    if not module.automatic_optimization:
        raise TrainingError(
            "Shrink cannot shrink a module with automatic_optimization=False, whose steps Lightning does not see: call "
            "prunus.Shrinker in training_step, after optimizer.step()"
        )
    if not isinstance(trainer.strategy, DDPStrategy | SingleDeviceStrategy):
        raise TrainingError(
            f"Shrink cannot shrink under {type(trainer.strategy).__name__}, whose processes hold parts of tensors: use "
            'one device or strategy="ddp"'
        )
