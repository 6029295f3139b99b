"""`prunus.save` and `prunus.load`: an edited network as its plan and its weights, without pickle.

The folder holds

    plan.json             the edits that lead from the network as built to this one
    weights.safetensors   every parameter and buffer, non-persistent ones too
    manifest.json         format, SHA-256 of the two and its own, the model's class, modes, what is frozen or tied

The network's code is not stored: `load` takes a function that builds the network as it was before the edits.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from prunus import storage
from prunus.decoding import DecodingError, read_text
from prunus.errors import EditError
from prunus.surgery.edit import Edit, Plan, apply, typed
from prunus.surgery.given import checked

FORMAT = 1
PLAN, WEIGHTS, MANIFEST = "plan.json", "weights.safetensors", "manifest.json"
CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}  # by the number of dimensions
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

    The folder is written aside and put in place whole; an earlier one there is replaced.

    Raises:
        EditError: `small` is not a module, is wrapped or holds what cannot be stored; the folder holds other
            things, or cannot be written. What was there before is untouched.
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
            safetensors.torch.save_file(storage.storable(_tensors(small)), aside / WEIGHTS)
            manifest = _described(small) | {"files": {name: storage.sha256(aside / name) for name in (PLAN, WEIGHTS)}}
            (aside / MANIFEST).write_text(storage.sealed({"format": FORMAT} | manifest), encoding="utf-8")
    except (OSError, SafetensorError, ValueError, KeyError) as error:
        raise EditError(f"{path} cannot be written: {error}") from error


@checked
def load(folder: str | Path, build: Callable[[], nn.Module]) -> nn.Module:
    """Return the network saved in `folder`, on the CPU, with its modes, frozen and tied parameters.

    `build` makes the network as it was before the plan's edits. It is called on the meta device, so that the wide
    network's memory is never needed; where that fails, or the network keeps tensors that are neither parameters nor
    buffers, it is called again for real.

    Raises:
        EditError: not such a folder, a damaged file, another format; `build` gives another network (the path is
            named). What `build` itself raises comes through.
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
    # Copied: at the file's addresses, which are not aligned, matrix products round otherwise than before.
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
    for name, tensor in _tensors(model).items():
        if tensor.is_meta:
            raise EditError(f"{place}: {name} is on the meta device and has no values")
    extra = [key for key in model.state_dict() if key.endswith("_extra_state")]
    if extra:
        raise EditError(f"{place}: {extra[0]} is state that is no tensor; keep it in a buffer")


def _refuse_strangers(path: Path) -> None:
    """Only a folder that `save` wrote is replaced."""
    if path.is_dir():
        strangers = sorted({entry.name for entry in path.iterdir()} - {PLAN, WEIGHTS, MANIFEST})
        if strangers:
            raise EditError(f"{path} also holds {strangers[0]!r}, which would be lost; choose another folder")
    elif path.exists():
        raise EditError(f"{path} is a file; choose a folder")


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def _described(model: nn.Module) -> dict[str, Any]:
    """Return what the manifest says beside format and files."""
    tensors = _tensors(model)
    return {
        "model": type(model).__qualname__,
        "training": [path for path, module in model.named_modules() if module.training],
        "frozen": [path for path, parameter in model.named_parameters() if not parameter.requires_grad],
        "tied": _ties(model),
        "channels_last": [
            path
            for path, tensor in tensors.items()
            if not tensor.is_contiguous() and _memory_format(tensor) is not torch.contiguous_format
        ],
    }


def _memory_format(tensor: Tensor) -> torch.memory_format:
    last = CHANNELS_LAST.get(tensor.dim())
    return last if last is not None and tensor.is_contiguous(memory_format=last) else torch.contiguous_format


def _ties(model: nn.Module) -> dict[str, str]:
    """Return the first path of every tensor that has further ones, by those."""
    first: dict[int, str] = {}
    named = (*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False))
    paths = [(path, first.setdefault(id(tensor), path)) for path, tensor in named]
    return {path: canonical for path, canonical in paths if path != canonical}


def _manifest(path: Path) -> dict[str, Any]:
    """Read the manifest and compare the files with it."""
    if not (path / MANIFEST).is_file():
        raise EditError(f"{path} is no folder that prunus.save wrote: there is no {MANIFEST} in it")
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
    manifest = {key: typed(hint, data[key], f"{path / MANIFEST}: {key}") for key, hint in _MANIFEST_TYPES.items()}
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
    """Build on the meta device and apply the plan; for real where that does not do."""
    try:
        with torch.device("meta"):
            wide = _built(build, name)
        small = apply(plan, wide)
        if not any(tensor.is_meta for tensor in _loose_tensors(small)):
            return small
    except Exception:  # user code that reads a value while it builds; real trouble shows again below
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
    """Yield the tensors that modules keep beside parameters and buffers."""
    known = {id(tensor) for tensor in _tensors(model).values()}
    for module in model.modules():
        yield from (tensor for tensor in _found(vars(module)) if id(tensor) not in known)


def _found(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        yield from _found(list(value.values()))
    elif isinstance(value, list | tuple | set):
        for item in value:
            yield from _found(item)


def _check_same(model: nn.Module, stored: Mapping[str, Tensor], tied: Mapping[str, str], path: Path) -> None:
    """The network built and edited must have the stored tensors, shape by shape, and tie the same ones."""
    ties, expected = _ties(model), _tensors(model)
    for name in _differing(ties.items(), tied.items()):
        raise EditError(f"build() gives another network than {path} holds: {name} is tied in only one of them")
    for name in sorted(expected.keys() | stored.keys()):
        if name not in stored:
            raise EditError(f"build() gives another network than {path} holds: {name} is not in the folder")
        if name not in expected:
            raise EditError(f"build() gives another network than {path} holds: it has no {name}")
        if expected[name].dtype.is_floating_point != stored[name].dtype.is_floating_point:
            raise EditError(
                f"build() gives another network than {path} holds: {name} is {expected[name].dtype} after the plan, "
                f"{stored[name].dtype} in the folder"
            )
        if expected[name].shape != stored[name].shape:
            raise EditError(
                f"build() gives another network than {path} holds: {name} has shape {list(expected[name].shape)} after "
                f"the plan, {list(stored[name].shape)} in the folder"
            )


def _differing(first: Iterable[tuple[str, str]], second: Iterable[tuple[str, str]]) -> list[str]:
    return sorted(path for path, _ in set(first) ^ set(second))


def _assign(model: nn.Module, stored: Mapping[str, Tensor], manifest: Mapping[str, Any]) -> None:
    """Put the stored tensors in place of the built ones, at every path of each."""
    parameters = dict(model.named_parameters())
    values: dict[str, Tensor] = {}
    for path, tensor in stored.items():
        if path in manifest["channels_last"] and (last := CHANNELS_LAST.get(tensor.dim())) is not None:
            tensor = tensor.contiguous(memory_format=last)
        if path in parameters:
            values[path] = nn.Parameter(tensor, requires_grad=path not in manifest["frozen"])
            vars(values[path]).update(vars(parameters[path]))
        else:
            values[path] = tensor
    for path, canonical in ({path: path for path in values} | manifest["tied"]).items():
        module, _, name = path.rpartition(".")
        setattr(model.get_submodule(module), name, values[canonical])
    for path, part in model.named_modules():
        part.training = path in manifest["training"]
