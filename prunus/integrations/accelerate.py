"""`Shrink` for a loop with Hugging Face's accelerate.

model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
shrink = Shrink(accelerator, model, optimizer, example, budget=prunus.Budget(macs=0.4), steps=steps)
for batch in loader:
    with accelerator.accumulate(model):
        ...
        optimizer.step()
        shrink.step()
"""

from pathlib import Path
from typing import Any, final

from torch import nn

from prunus.budget import Budget
from prunus.errors import CheckpointError, TrainingError
from prunus.integrations.running import Running, read_state, write_state
from prunus.modules.given import Inputs
from prunus.records import ShrinkRecord
from prunus.surgery import Plan


@final
class Shrink:
    """Shrink a network prepared by `accelerator.prepare` to a budget.

    `accelerator.save_state` writes the Shrinker's state beside the weights. `accelerator.load_state` makes networks as
    built narrow before it loads them, so a resumed loop continues bit for bit. Gradient accumulation, clipping and
    mixed precision need nothing further: a step counts when the optimizer has stepped.

    Refused by name: several processes, FSDP, DeepSpeed and Megatron.
    """

    def __init__(
        self,
        accelerator: Any,
        model: nn.Module,
        optimizer: Any,
        example: Inputs,
        *,
        budget: Budget,
        part: str = "",
        steps: int | None = None,
        epochs: int | None = None,
        **settings: Any,
    ) -> None:
        """Read the network.

        Args:
            accelerator: the Accelerator.
            model: prepared or not.
            optimizer: prepared or not.
            example: the network's positional arguments; a tensor stands for a tuple of one.
            budget: bounds on the final network's cost.
            part: path of the network in the model; "": the model itself.
            steps: optimizer steps of the whole training, in this process.
            epochs: of the whole training, where the steps are not known; call `end_epoch()` after each.
            settings: `pace`, `begin`, `end`, `every`, `settled`, `keep`, `kwargs` and `meter` of `prunus.Shrinker`.

        Raises:
            TrainingError: there are several processes, or parameters are sharded.
        """
        _refuse(accelerator)
        self._accelerator, self._running = accelerator, Running(part, example, {"budget": budget, **settings})
        module = getattr(model, "_orig_mod", model)  # compiled
        self.shrinker = self._running.begin(module, optimizer, steps=steps, epochs=epochs)
        self._handles = (
            accelerator.register_save_state_pre_hook(self._save),
            accelerator.register_load_state_pre_hook(self._load),
        )

    @property
    def plan(self) -> Plan:
        """All cuts so far, as edits of the network as built; `prunus.save` takes this plan."""
        return self._running.plan

    def follow(self, copy: nn.Module) -> None:
        """Make a copy of the network, such as an average of its weights, narrower along with it."""
        self._running.follow(copy)

    def step(self) -> ShrinkRecord | None:
        """Press channels; call it after `optimizer.step()`. At the end of a segment, return the cut's record."""
        return self.shrinker.step()

    def end_epoch(self) -> ShrinkRecord | None:
        """End an epoch, for a Shrinker that counts in `epochs`; return the record of a cut, if there was one."""
        return self.shrinker.end_epoch()

    def finish(self) -> ShrinkRecord | None:
        """Reach the budget now, as `prunus.Shrinker.finish` does."""
        return self.shrinker.finish()

    def close(self) -> None:
        """From now on, neither save nor load the Shrinker's state."""
        for handle in self._handles:
            handle.remove()

    def _save(self, models: list[nn.Module], weights: list[Any], folder: str) -> None:
        if self._accelerator.is_main_process:
            Path(folder).mkdir(parents=True, exist_ok=True)
            write_state(Path(folder), self.shrinker)

    def _load(self, models: list[nn.Module], folder: str) -> None:
        state = read_state(Path(folder))
        if state is None:
            raise CheckpointError(f"{folder} was written without Shrink: load it before Shrink is made, or start again")
        self.shrinker.load_state_dict(state)


def _refuse(accelerator: Any) -> None:
    kind = accelerator.distributed_type.value
    if kind in ("FSDP", "DEEPSPEED", "MEGATRON_LM", "TP"):
        raise TrainingError(
            f"Shrink cannot shrink under {kind}, whose processes hold parts of tensors: train with one process"
        )
    if accelerator.num_processes > 1:
        raise TrainingError(
            f"Shrink cannot shrink with {accelerator.num_processes} processes ({kind}): your loop holds the wrapper "
            "that accelerator.prepare made, which would have to be created again after each cut, or the processes "
            "drift apart. Train with one process, in a recipe, or with Lightning"
        )
