"""`Shrink` in a loop with Hugging Face's accelerate.

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
    """Shrinks a network that `accelerator.prepare` has prepared, to a budget.

    `accelerator.save_state` writes the Shrinker's state beside the weights, and `accelerator.load_state` into networks
    as they were built makes them narrow first, so that a resumed loop goes on bit for bit. Gradient accumulation,
    clipping and mixed precision need nothing further: a step counts when the optimizer has stepped.

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
            model: prepared, or not.
            optimizer: prepared, or not.
            example: positional arguments of the network; a tensor stands for a tuple of one.
            budget: what the network may cost in the end.
            part: path of the network in the model; "": the model itself.
            steps: optimizer steps of the whole training, of this process.
            epochs: of the whole training, where the steps are not known; call `end_epoch()` after each.
            settings: `pace`, `begin`, `end`, `every`, `settled`, `keep`, `kwargs` and `meter`, as
                `prunus.Shrinker` takes them.

        Raises:
            TrainingError: several processes, or parameters that are sharded.
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
        """All cuts so far, as edits of the network as it was built: what `prunus.save` takes."""
        return self._running.plan

    def follow(self, copy: nn.Module) -> None:
        """Let a copy of the network, such as an average of its weights, become narrower with it."""
        self._running.follow(copy)

    def step(self) -> ShrinkRecord | None:
        """Press channels; call it after `optimizer.step()`. Where a segment ends, return the cut's record."""
        return self.shrinker.step()

    def end_epoch(self) -> ShrinkRecord | None:
        """Tell a Shrinker that counts in `epochs` that one has ended; return the record of a cut, if there was one."""
        return self.shrinker.end_epoch()

    def finish(self) -> ShrinkRecord | None:
        """Reach the budget now, as `prunus.Shrinker.finish`."""
        return self.shrinker.finish()

    def close(self) -> None:
        """Let the accelerator's states be without the Shrinker's from now on."""
        for handle in self._handles:
            handle.remove()

    def _save(self, models: list[nn.Module], weights: list[Any], folder: str) -> None:
        if self._accelerator.is_main_process:
            Path(folder).mkdir(parents=True, exist_ok=True)
            write_state(Path(folder), self.shrinker)

    def _load(self, models: list[nn.Module], folder: str) -> None:
        state = read_state(Path(folder))
        if state is None:
            raise CheckpointError(f"{folder} was written without Shrink: load it before Shrink is made, or begin anew")
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
            "that accelerator.prepare made, which would have to be made anew after each cut, or the processes drift "
            "apart. Train with one process, in a recipe, or with Lightning"
        )
