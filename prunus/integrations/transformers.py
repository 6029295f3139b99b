"""`Shrink`, a callback of the Hugging Face Trainer.

shrink = Shrink(example, budget=prunus.Budget(macs=0.4))
trainer = Trainer(model=model, args=arguments, train_dataset=data, callbacks=[shrink])
trainer.train()   # and trainer.train(resume_from_checkpoint=True)
"""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, final

from torch import nn

from prunus import compat  # noqa: F401 - torchvision beside a CPU-only torch, before transformers imports it
from prunus.budget import Budget
from prunus.errors import CheckpointError, TrainingError
from prunus.integrations.running import Running, read_state, weights_digest, write_state
from prunus.modules.given import Inputs
from prunus.surgery import Plan

try:
    from transformers import TrainerCallback
except ImportError as error:
    raise ImportError(
        "prunus.integrations.transformers needs transformers: pip install 'prunus[transformers]'"
    ) from error


@final
class Shrink(TrainerCallback):  # type: ignore[misc]
    """Shrink the model, or a part of it, to a budget while the Trainer trains it.

    The model stays the same object. Each of the Trainer's checkpoints also holds the Shrinker's state, so
    `resume_from_checkpoint` continues bit for bit. The best model is the best one since the last cut.

    Pass it as `callbacks=[shrink]`. Refused by name: several processes, DataParallel, FSDP, DeepSpeed and
    `auto_find_batch_size`.
    """

    def __init__(self, example: Inputs, *, budget: Budget, part: str = "", **settings: Any) -> None:
        """Store the settings.

        Args:
            example: the network's positional arguments; a tensor stands for a tuple of one.
            budget: bounds on the final network's cost.
            part: path of the network in the model, such as "backbone"; "": the model itself.
            settings: `pace`, `begin`, `end`, `every`, `settled`, `keep`, `kwargs` and `meter` of `prunus.Shrinker`.
        """
        self._running = Running(part, example, {"budget": budget, **settings})
        self._hook: Any = None
        self._steps: int | None = None  # of a checkpoint's training

    @property
    def plan(self) -> Plan:
        """All cuts so far, as edits of the network as built; `prunus.save` takes this plan."""
        return self._running.plan

    def follow(self, copy: nn.Module) -> None:
        """Make a copy of the network, such as an average of its weights, narrower along with it."""
        self._running.follow(copy)

    def on_init_end(self, args: Any, state: Any, control: Any, *, model: nn.Module, **others: Any) -> None:
        """Hook into weight loading: the Trainer loads a checkpoint's weights before anything else."""

        def before_load(module: nn.Module, weights: Mapping[str, Any], *rest: Any) -> None:
            self._fit(module, weights, args)

        self._hook = model.register_load_state_dict_pre_hook(before_load)  # type: ignore[no-untyped-call]

    def _fit(self, model: nn.Module, weights: Mapping[str, Any], args: Any) -> None:
        """Make the model as narrow as the weights that it is about to load."""
        own = model.state_dict()
        differing = [name for name, value in weights.items() if name in own and own[name].shape != value.shape]
        if differing and self._running.shrinker is None:
            self._go_on(model, weights, args)
        elif differing:
            name = differing[0]
            raise CheckpointError(
                f"the weights are of another width than the model, which has been cut ({name}: "
                f"{list(weights[name].shape)} for {list(own[name].shape)}): build the model again"
            )

    def _go_on(self, model: nn.Module, weights: Mapping[str, Any], args: Any) -> None:
        """Load the state that is saved beside the weights of a checkpoint.

        Raises:
            CheckpointError: no known checkpoint has these weights and a state.
        """
        digest = weights_digest(weights)
        folders = [*sorted(Path(args.output_dir).glob("checkpoint-*")), Path(args.resume_from_checkpoint or ".")]
        states = (each for each in map(read_state, folders) if each is not None)
        found = next((each for each in states if each.get("weights") == digest), None)
        if found is None:
            raise CheckpointError(
                "the Trainer resumes with weights without a saved Shrink state beside them, neither in a checkpoint "
                f"of {args.output_dir} nor in the arguments' resume_from_checkpoint: name their folder there, or "
                "start again"
            )
        self._steps = int(found["steps"])
        self._running.narrow(model, found, steps=self._steps)

    def on_train_begin(
        self, args: Any, state: Any, control: Any, *, model: nn.Module, optimizer: Any, **others: Any
    ) -> None:
        """Read the network, or continue with that of the checkpoint."""
        _refuse(args)
        if self._running.shrinker is None and state.global_step:
            self._go_on(model, model.state_dict(), args)
        if self._steps not in (None, state.max_steps):
            raise CheckpointError(
                f"the checkpoint is of a training of {self._steps} steps, and this one has {state.max_steps}: give as "
                "many epochs or steps, so that the budget is met at the same share of them"
            )
        self._running.begin(model, optimizer, steps=state.max_steps)

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        """Press channels, and remove zero channels at the end of a segment."""
        if self._running.now().step() is not None:
            state.best_metric = state.best_model_checkpoint = None  # of a wider network

    def on_save(self, args: Any, state: Any, control: Any, *, model: nn.Module, **others: Any) -> None:
        """Put the Shrinker's state into the checkpoint that the Trainer has just written."""
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        if state.is_world_process_zero and folder.is_dir():
            digest = weights_digest(model.state_dict())
            write_state(folder, self._running.now(), weights=digest, steps=str(state.max_steps))

    def on_train_end(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        """Warn if the training ended before the budget was reached."""
        if self._hook is not None:
            self._hook.remove()
        shrinker = self._running.now()
        if not shrinker.schedule.is_over(shrinker.clock):
            warnings.warn(
                f"the training ended at step {state.global_step} of {state.max_steps}, before the budget was reached: "
                "the network is still larger than the budget",
                stacklevel=2,
            )


def _refuse(args: Any) -> None:
    several = args.parallel_mode.value != "not_parallel"
    wrong = {
        "FSDP": bool(args.fsdp),
        "DeepSpeed": bool(args.deepspeed),
        "auto_find_batch_size": bool(args.auto_find_batch_size),
        "several processes or GPUs": several,
    }
    advice = {
        "FSDP": "its processes hold parts of tensors: train with one process",
        "DeepSpeed": "its processes hold parts of tensors: train with one process",
        "auto_find_batch_size": "it starts again with a network that may have been cut: give the batch size",
        "several processes or GPUs": "the Trainer does not wrap the model again after a cut, and the processes would "
        "drift apart: train with one process and CUDA_VISIBLE_DEVICES=0, in a recipe, "
        "or with Lightning",
    }
    if found := [name for name, is_so in wrong.items() if is_so]:
        raise TrainingError(f"Shrink cannot shrink a training with {found[0]}: {advice[found[0]]}")
