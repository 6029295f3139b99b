"""The common part of the integrations: the network, its Shrinker, the copies that follow, and its state in a file."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from prunus.errors import CheckpointError, TrainingError
from prunus.modules.paths import module_at
from prunus.shrink import Shrinker
from prunus.surgery import Plan
from prunus.writing import write_whole

FILE_NAME = "prunus_shrinker.safetensors"
_TENSORS, _TEXTS = ("importance", "pressed"), ("plan", "progress")


class Running:
    """The Shrinker of a trainer's network, from before the trainer's optimizer exists until after the training.

    Attributes:
        part: path of the network in the trainer's module; "": the module itself.
        example: the network's positional arguments.
        settings: of the Shrinker.
        shrinker: None before the training.
    """

    def __init__(self, part: str, example: Any, settings: Mapping[str, Any]) -> None:
        self.part, self.example, self.settings = part, example, dict(settings)
        self.shrinker: Shrinker | None = None
        self._copies = list[nn.Module]()
        self._waits = False  # for the trainer's optimizer
        self._before = Plan()  # cuts of earlier trainings

    def network(self, module: nn.Module) -> nn.Module:
        """Return the network in the trainer's module."""
        found: nn.Module = module_at(module, self.part) if self.part else module
        return found

    def follow(self, copy: nn.Module) -> None:
        """Make a copy of the network narrower along with it, now or from the beginning of the training."""
        if self.shrinker is None:
            self._copies.append(copy)
        else:
            self.shrinker.follow(copy)

    def narrow(self, module: nn.Module, state: Mapping[str, Any], **length: Any) -> None:
        """Make the network, as built, as narrow as it was when `state` was saved; `begin` continues from there.

        Raises:
            CheckpointError: the state is of another network.
        """
        network = self.network(module)
        nothing = torch.optim.SGD(network.parameters(), lr=0.0)  # stands in until the trainer has its own
        self.shrinker = self._made(network, nothing, **length)
        self._follow_copies(self.shrinker)
        self.shrinker.load_state_dict(state)
        self._waits = True

    def _made(self, network: nn.Module, optimizer: Any, **length: Any) -> Shrinker:
        return Shrinker(network, optimizer, self.example, **length, **self.settings)

    def _follow_copies(self, shrinker: Shrinker) -> None:
        for copy in self._copies:
            shrinker.follow(copy)
        self._copies.clear()

    def begin(self, module: nn.Module, optimizer: Any, **length: Any) -> Shrinker:
        """Return the Shrinker of a training that begins, or continues, with `optimizer`.

        Args:
            module: the trainer's.
            optimizer: the trainer's, wrapped or not.
            length: `steps` or `epochs` of the whole training.
        """
        if self.shrinker is not None and self._waits:
            self.shrinker.use(optimizer)
        else:
            self._before += Plan() if self.shrinker is None else self.shrinker.plan
            self.shrinker = self._made(self.network(module), optimizer, **length)
        self._waits = False
        self._follow_copies(self.shrinker)
        return self.shrinker

    @property
    def plan(self) -> Plan:
        """All cuts so far, as edits of the network as built.

        Raises:
            TrainingError: no training has begun.
        """
        return self._before + self.now().plan

    def now(self) -> Shrinker:
        """Return the Shrinker.

        Raises:
            TrainingError: no training has begun.
        """
        if self.shrinker is None:
            raise TrainingError("Shrink: no training has begun, so there is no plan and no state yet")
        return self.shrinker


def plan_in(state: Any) -> Plan:
    """Return the plan in a Shrinker's state.

    Raises:
        CheckpointError: `state` holds no plan.
    """
    if not isinstance(state, Mapping) or not isinstance(state.get("plan"), str):
        raise CheckpointError(f"a Shrinker's state holds its plan, and this {type(state).__name__} does not")
    return Plan.from_json(state["plan"])


def weights_digest(state_dict: Mapping[str, Any]) -> str:
    """Return the SHA-256 of names, shapes and values of a state dict."""
    digest = hashlib.sha256()
    for name in sorted(state_dict):
        if isinstance(value := state_dict[name], Tensor):
            flat = value.detach().cpu().contiguous()
            digest.update(f"{name} {list(flat.shape)} {flat.dtype}".encode())
            digest.update(flat.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def write_state(folder: Path, shrinker: Shrinker, **texts: str) -> None:
    """Write the state of `shrinker`, and `texts`, to the folder of a trainer's checkpoint."""
    state = shrinker.state_dict()
    tensors = {name: state[name].cpu().contiguous() for name in _TENSORS}
    write_whole(folder / FILE_NAME, safetensors.torch.save(tensors, {name: state[name] for name in _TEXTS} | texts))


def read_state(folder: Path) -> dict[str, Any] | None:
    """Return the state that `write_state` wrote; None where the folder has no such file.

    Raises:
        CheckpointError: the file is damaged.
    """
    path = folder / FILE_NAME
    if not path.is_file():
        return None
    try:
        with safe_open(path, "pt") as file:
            return {**(file.metadata() or {}), **{name: file.get_tensor(name) for name in _TENSORS}}
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} is damaged: {error}") from error
