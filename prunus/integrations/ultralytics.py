"""`Shrink` for Ultralytics' own trainer: callbacks that support its average, checkpoints, `val` and `export`.

    model = YOLO("yolo11n.yaml")
    shrink = Shrink(budget=prunus.Budget(macs=0.4))
    shrink.train(model, data="signs.yaml", epochs=100, imgsz=320)

Ultralytics is neither imported nor included here: you supply its objects, under their own licence (AGPL-3.0).
"""

import math
import warnings
from typing import Any, final

import torch
from torch import Tensor, nn

from prunus.budget import Budget
from prunus.errors import TrainingError
from prunus.integrations.running import Running, plan_in
from prunus.shrink import Shrinker
from prunus.surgery import Plan, apply

STATE = "prunus_state"  # the attribute of the averaged network that keeps the Shrinker's state in every checkpoint
EVENTS = (
    "on_pretrain_routine_start",
    "on_pretrain_routine_end",
    "on_train_epoch_start",
    "on_train_batch_end",
    "on_train_epoch_end",
    "on_train_end",
)


@final
class Shrink:
    """Shrink the network that Ultralytics' trainer trains to a budget.

    The average of the weights shrinks with the network, `best.pt` is the best network of the final widths, and every
    checkpoint holds the narrow network and the plan of its cuts (`plan`, `plan_of_network`), so `val`, `predict`
    and `export` need nothing further. To continue a training that was stopped, use `shrink.train(YOLO("last.pt"),
    resume=True)`. Early stopping waits until the budget is met.

    Refused by name: several GPUs, `time=`, `distill_model=` and `quantize=8`.
    """

    def __init__(self, *, budget: Budget, example: Tensor | None = None, **settings: Any) -> None:
        """Store the settings.

        Args:
            budget: bounds on the final network's cost.
            example: an input [1, C, H, W]; None: zeros of the training's image size.
            settings: `pace`, `begin`, `end`, `every`, `settled`, `keep` and `meter` of `prunus.Shrinker`, in epochs.
        """
        self._example, self._settings = example, {"budget": budget, **settings}
        self._began = Plan()
        self._running: Running | None = None

    def train(self, yolo: Any, **arguments: Any) -> Any:
        """Return `yolo.train(**arguments)`; afterwards `yolo` holds the narrow network.

        Raises:
            TrainingError: there are several GPUs; or nothing has shrunk, since the trainer ran no callbacks.
        """
        _refuse_devices(arguments.get("device", getattr(yolo, "overrides", {}).get("device")))
        self.attach(yolo)
        result = yolo.train(**arguments)
        if self._running is None:
            raise TrainingError(
                "the trainer has not run the callbacks, so that nothing has shrunk: train on one device"
            )
        return result

    def attach(self, yolo: Any) -> None:
        """Register the callbacks, so that `yolo.train(...)` shrinks. `train` also checks that they ran."""
        for event in EVENTS:
            if getattr(self, f"_{event}") not in yolo.callbacks[event]:
                yolo.add_callback(event, getattr(self, f"_{event}"))

    @property
    def plan(self) -> Plan:
        """All cuts so far, as edits of the network that the YAML builds."""
        return self._began + self.shrinker.plan

    @property
    def shrinker(self) -> Shrinker:
        """The Shrinker of the training.

        Raises:
            TrainingError: no training has begun.
        """
        if self._running is None:
            raise TrainingError("Shrink: no training has begun with its callbacks, so there is no plan yet")
        return self._running.now()

    def _on_pretrain_routine_start(self, trainer: Any) -> None:
        """Make the trainer build a narrow network where its weights are those of a narrow one."""
        _refuse(trainer)
        self._running, self._began = None, Plan()
        get_model = trainer.get_model

        def narrow_model(cfg: Any = None, weights: Any = None, verbose: bool = True) -> nn.Module:
            state = getattr(weights, STATE, None)
            if state is None:
                model: nn.Module = get_model(cfg=cfg, weights=weights, verbose=verbose)
                return model
            model = get_model(cfg=cfg, weights=None, verbose=verbose)
            if trainer.resume:
                self._running = Running("", self._input(trainer, model), self._settings)
                self._running.narrow(model, state, epochs=trainer.epochs)
            else:  # a new training of a network that is already narrow
                self._began = plan_in(state)
                model = apply(self._began, model)
            model.load_state_dict(weights.float().state_dict())
            return model

        trainer.get_model = narrow_model

    def _input(self, trainer: Any, model: nn.Module) -> Tensor:
        if self._example is not None:
            return self._example
        channels = getattr(model, "yaml", {}).get("channels", 3)
        return torch.zeros(1, channels, trainer.args.imgsz, trainer.args.imgsz)

    def _on_pretrain_routine_end(self, trainer: Any) -> None:
        model = getattr(trainer.model, "_orig_mod", trainer.model)  # compiled
        if self._running is None:
            self._running = Running("", self._input(trainer, model), self._settings)
        self._running.begin(model, trainer.optimizer, epochs=trainer.epochs)

    def _on_train_epoch_start(self, trainer: Any) -> None:
        self.shrinker.begin_period(max(1, math.ceil(len(trainer.train_loader) / trainer.accumulate)))
        if not self._is_done():
            trainer.stopper.best_epoch = trainer.epoch + 1  # early stopping waits

    def _on_train_batch_end(self, trainer: Any) -> None:
        self.shrinker.step()

    def _on_train_epoch_end(self, trainer: Any) -> None:
        shrinker, average = self.shrinker, trainer.ema
        if trainer.loss is not None and not bool(trainer.loss.isfinite()):
            shrinker.clock.step = 0  # the trainer returns to its last checkpoint and repeats the epoch
            return
        shrinker.network.copies.clear()  # the trainer may have made another average
        shrinker.follow(average.ema)
        if shrinker.end_epoch() is not None:
            trainer.ema = type(average)(trainer.model, updates=average.updates)  # the old one holds the wide tensors
            trainer.ema.ema, trainer.ema.decay, trainer.ema.enabled = average.ema, average.decay, average.enabled
            trainer.best_fitness, trainer.stopper.best_fitness = None, 0.0  # of a wider network
        for network in (shrinker.network.model, trainer.ema.ema):
            _fit_exporter_(network)
        setattr(trainer.ema.ema, STATE, shrinker.state_dict())

    def _on_train_end(self, trainer: Any) -> None:
        if not self._is_done():
            warnings.warn(
                f"the training ended after {self.shrinker.clock.period} of {trainer.epochs} epochs, before the budget "
                "was reached: the network is still larger than the budget",
                stacklevel=2,
            )

    def _is_done(self) -> bool:
        return self.shrinker.schedule.is_over(self.shrinker.clock)


def _fit_exporter_(model: nn.Module) -> None:
    """Update the width `c` of blocks that split their first layer's output in halves.

    They keep `c` for `forward_split`, which only the exporter runs, so a trace of `forward` does not see it.
    """
    for module in model.modules():
        first = getattr(getattr(module, "cv1", None), "conv", None)
        if hasattr(module, "forward_split") and isinstance(first, nn.Conv2d):
            module.c = first.out_channels // 2  # type: ignore[assignment]


def plan_of_network(model: nn.Module) -> Plan:
    """Return the plan that makes a checkpoint's network (`YOLO("best.pt").model`) from the one that its YAML builds.

    Raises:
        CheckpointError: the network was not trained with `Shrink`.
    """
    return plan_in(getattr(model, STATE, None))


def _refuse_devices(device: Any) -> None:
    several = len(device) > 1 if isinstance(device, list | tuple) else "," in str(device)
    if several:
        raise TrainingError(
            f"device={device!r}: on several GPUs Ultralytics trains in processes of its own, which take no callbacks, "
            "so that nothing would shrink: train on one, as in device=0"
        )


def _refuse(trainer: Any) -> None:
    _refuse_devices(trainer.args.device)
    wrong = {
        "world_size": trainer.world_size > 1,
        "time": bool(trainer.args.time),
        "distill_model": getattr(trainer.args, "distill_model", None) is not None,
        "quantize": getattr(trainer.args, "quantize", None) == 8,
    }
    advice = {
        "world_size": "several processes: train on one device",
        "time": "the number of epochs is not known: give epochs=",
        "distill_model": "the trained network is a pair of two: distil in a separate training",
        "quantize": "the quantised layers cannot be cut: quantise the narrow network afterwards",
    }
    if found := [name for name, is_so in wrong.items() if is_so]:
        raise TrainingError(f"Shrink cannot shrink a training with `{found[0]}`: {advice[found[0]]}")
