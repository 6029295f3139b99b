"""`prunus.save` and `prunus.load`: store an edited network as its plan and its weights, without pickle.

The folder holds

    plan.json             the edits that lead from the network as built to this one
    weights.safetensors   every parameter and buffer, non-persistent ones too
    manifest.json         format, SHA-256 of the two and its own, the model's class, modes, frozen and tied parameters

The network's code is not stored: `load` takes a function that builds the network as it was before the edits.
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from prunus import storage
from prunus.decoding import DecodingError, read_text
from prunus.errors import EditError
from prunus.modules.modes import keep_anew_
from prunus.modules.tensors import channels_last, memory_format_of, named_tensors, parameter_like, set_tensor_
from prunus.modules.ties import further_paths
from prunus.modules.tree import leaves
from prunus.records.typed import typed
from prunus.surgery.argument_types import checked
from prunus.surgery.edit import Edit
from prunus.surgery.plan import Plan, apply

FORMAT = 1
PLAN, WEIGHTS, MANIFEST = "plan.json", "weights.safetensors", "manifest.json"
WITHOUT_VALUES = (RuntimeError, TypeError, ValueError, EditError)  # raised by code that reads values of a meta tensor
_MANIFEST_TYPES: dict[str, Any] = {
    "model": str,
    "files": dict[str, str],
    "training": tuple[str, ...],
    "frozen": tuple[str, ...],
    "tied": dict[str, str],
    "channels_last": tuple[str, ...],
}


def save(folder: str | Path, small: nn.Module, plan: Plan | Edit) -> None:
    """Write `small`, which `plan` made from a network that can be built again, to `folder`.

    The folder is written under another name and moved into place as a whole; an earlier one is replaced.

    Raises:
        EditError: `small` is not a module, is wrapped or holds state that cannot be stored; the folder holds other
            files, or cannot be written. An earlier folder is then untouched.
    """
    path = Path(folder)
    _check_model(small, "prunus.save")
    edits = Plan((plan,)) if isinstance(plan, Edit) else plan
    if not isinstance(edits, Plan):
        raise EditError(f"prunus.save takes the plan that made the network, got {type(plan).__name__}")
    _refuse_strangers(path)
    try:
        with storage.whole_folder(path) as aside:
            (aside / PLAN).write_text(edits.to_json(), encoding="utf-8")
            safetensors.torch.save_file(storage.storable(named_tensors(small)), aside / WEIGHTS)
            manifest = _described(small) | {"files": {name: storage.sha256(aside / name) for name in (PLAN, WEIGHTS)}}
            (aside / MANIFEST).write_text(storage.sealed({"format": FORMAT} | manifest), encoding="utf-8")
    except (OSError, SafetensorError, ValueError, KeyError) as error:
        raise EditError(f"{path} cannot be written: {error}") from error


@checked
def load(folder: str | Path, build: Callable[[], nn.Module]) -> nn.Module:
    """Return the network saved in `folder`, on the CPU, with its modes, frozen and tied parameters.

    `build` makes the network as it was before the plan's edits. It is called on the meta device, so that the wide
    network's memory is not needed; if that fails, or the network keeps tensors that are neither parameters nor buffers,
    it is called again with real tensors.

    Raises:
        EditError: the folder is not one of `save`, has a damaged file or another format, or `build` returns another
            network (the first difference is named). Exceptions of `build` itself are passed on.
    """
    path = storage.current(Path(folder))
    manifest = _manifest(path)
    try:
        plan = Plan.from_json(read_text(path / PLAN))
    except (OSError, DecodingError) as error:
        raise EditError(f"{path / PLAN} cannot be read: {error}") from error
    try:
        mapped = safetensors.torch.load_file(path / WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise EditError(f"{path / WEIGHTS} cannot be read: {error}") from error
    # Copied, since matrix products on the file's unaligned memory round differently.
    stored = {name: tensor.clone() for name, tensor in mapped.items()}
    small = _replayed(plan, build, manifest["model"])
    _check_same(small, stored, manifest["tied"], path)
    _assign(small, stored, manifest)
    return small


def _check_model(model: Any, place: str) -> None:
    if not isinstance(model, nn.Module):
        raise EditError(f"{place} takes a torch.nn.Module, got {type(model).__name__}")
    if isinstance(model, nn.parallel.DistributedDataParallel | nn.DataParallel):
        raise EditError(f"{place}: the model is wrapped in {type(model).__name__}; pass what is inside, model.module")
    for name, tensor in named_tensors(model).items():
        if tensor.is_meta:
            raise EditError(f"{place}: {name} is on the meta device and has no values")
    extra = [key for key in model.state_dict() if key.endswith("_extra_state")]
    if extra:
        raise EditError(f"{place}: {extra[0]} is state that is not a tensor; keep it in a buffer")


def _refuse_strangers(path: Path) -> None:
    """Refuse to replace a file, or a folder with other files than those of `save`."""
    if path.is_dir():
        strangers = sorted({entry.name for entry in path.iterdir()} - {PLAN, WEIGHTS, MANIFEST})
        if strangers:
            raise EditError(f"{path} also holds {strangers[0]!r}, which would be lost; choose another folder")
    elif path.exists():
        raise EditError(f"{path} is a file; choose a folder")


def _described(model: nn.Module) -> dict[str, Any]:
    """Return the manifest without format and files."""
    tensors = named_tensors(model)
    return {
        "model": type(model).__qualname__,
        "training": [path for path, module in model.named_modules() if module.training],
        "frozen": [path for path, parameter in model.named_parameters() if not parameter.requires_grad],
        "tied": further_paths(model),
        "channels_last": [path for path, each in tensors.items() if memory_format_of(each) != torch.contiguous_format],
    }


def _manifest(path: Path) -> dict[str, Any]:
    """Return the manifest; refuse files that differ from it."""
    if not (path / MANIFEST).is_file():
        raise EditError(f"{path} was not written by prunus.save: there is no {MANIFEST} in it")
    try:
        data = storage.unsealed(read_text(path / MANIFEST))
    except (OSError, ValueError) as error:
        raise EditError(f"{path / MANIFEST} is damaged: {error}") from error
    if "format" not in data:
        raise EditError(f"{path / MANIFEST} is damaged: it names no format")
    if type(data["format"]) is not int or data["format"] != FORMAT:
        raise EditError(
            f"{path} has format {data['format']!r}, this Prunus reads format {FORMAT}: use the version that wrote it"
        )
    if missing := sorted(_MANIFEST_TYPES.keys() - data.keys()):
        raise EditError(f"{path / MANIFEST} is damaged: {missing[0]!r} is missing")
    try:
        manifest = {key: typed(hint, data[key], f"{path / MANIFEST}: {key}") for key, hint in _MANIFEST_TYPES.items()}
    except ValueError as error:
        raise EditError(str(error)) from error
    for name in (PLAN, WEIGHTS):
        _verify(path / name, manifest["files"].get(name))
    return manifest


def _verify(file: Path, digest: str | None) -> None:
    try:
        found = storage.sha256(file)
    except OSError as error:
        raise EditError(f"{file} is missing or cannot be read: {error.strerror}") from error
    if found != digest:
        raise EditError(f"{file} is damaged: it is not what was written (SHA-256); save the network again")


def _replayed(plan: Plan, build: Callable[[], nn.Module], name: str) -> nn.Module:
    """Build the network on the meta device and apply the plan; build it with values where that is not possible."""
    try:
        with torch.device("meta"):
            wide = _built(build, name)
        small = apply(plan, wide)
        if not any(tensor.is_meta for tensor in _loose_tensors(small)):
            return small
    except WITHOUT_VALUES:  # the network's code reads values while it is built; any other error is raised again below
        pass
    return apply(plan, _built(build, name))


def _built(build: Callable[[], nn.Module], name: str) -> nn.Module:
    model = build()
    if not isinstance(model, nn.Module):
        raise EditError(f"build() gives a {type(model).__name__}, not a torch.nn.Module")
    if type(model).__qualname__ != name:
        raise EditError(f"build() gives a {type(model).__qualname__}, the folder holds a {name}")
    return model


def _loose_tensors(model: nn.Module) -> Iterator[Tensor]:
    """Yield the tensors that modules keep besides parameters and buffers."""
    known = {id(tensor) for tensor in named_tensors(model).values()}
    for module in model.modules():
        yield from (each for each in leaves(vars(module)) if isinstance(each, Tensor) and id(each) not in known)


def _check_same(model: nn.Module, stored: Mapping[str, Tensor], tied: Mapping[str, str], path: Path) -> None:
    """Check that the network built and edited has the stored tensors, with their shapes and ties."""
    ties, expected = further_paths(model).items(), named_tensors(model)
    differing = [f"{name} is tied in only one of them" for name, _ in sorted(ties ^ tied.items())]
    for name in sorted(expected.keys() | stored.keys()):
        if name not in stored:
            differing.append(f"{name} is not in the folder")
        elif name not in expected:
            differing.append(f"it has no {name}")
        elif (built := expected[name]).dtype.is_floating_point != (there := stored[name]).dtype.is_floating_point:
            differing.append(f"{name} is {built.dtype} after the plan, {there.dtype} in the folder")
        elif built.shape != there.shape:
            differing.append(f"{name} has shape {list(built.shape)} after the plan, {list(there.shape)} in the folder")
    if differing:
        raise EditError(f"build() gives another network than {path} holds: {differing[0]}")


def _assign(model: nn.Module, stored: Mapping[str, Tensor], manifest: Mapping[str, Any]) -> None:
    """Put the stored tensors in place of the built ones, at every path of each."""
    parameters = dict(model.named_parameters())
    values: dict[str, Tensor] = {}
    for path, tensor in stored.items():
        if path in manifest["channels_last"]:
            tensor = channels_last(tensor)
        if path in parameters:
            tensor = parameter_like(tensor, parameters[path]).requires_grad_(path not in manifest["frozen"])
        values[path] = tensor
    for path, canonical in ({path: path for path in values} | manifest["tied"]).items():
        set_tensor_(model, path, values[canonical])
    for path, part in model.named_modules():
        part.training = path in manifest["training"]
    keep_anew_(model)
