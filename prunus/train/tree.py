"""State trees as tensors and JSON, exactly and without pickle: what `state_dict()` and random generators return.

`flatten` takes a tree of dictionaries, lists, tuples, tensors, numpy arrays, numbers, strings, booleans and
None apart into named tensors and a structure that JSON can hold; `unflatten` puts it together again. Types
survive: a tuple stays a tuple, an integer key stays an integer, a float keeps its last bit.
"""

import json
import random
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from prunus.errors import CheckpointError

Tree = Any  # nested containers; their leaves are named above
Structure = Any  # JSON: scalars as they are, everything else {"type": content}


def flatten(tree: Tree, name: str = "state") -> tuple[dict[str, Tensor], Structure]:
    """Return the tensors of `tree`, keyed by their path below `name`, and the structure that refers to them.

    Raises:
        CheckpointError: a leaf or a key of a type that cannot be stored; its path is named.
    """
    tensors: dict[str, Tensor] = {}
    return tensors, _flatten(tree, name, tensors)


def _flatten(tree: Tree, path: str, tensors: dict[str, Tensor]) -> Structure:
    if tree is None or isinstance(tree, bool | str):
        return tree
    if isinstance(tree, int | float):  # numpy's float64 is a float too; it comes back as a plain one
        return int(tree) if isinstance(tree, int) else float(tree)
    if isinstance(tree, Tensor):
        return {"tensor": _put(tree, path, tensors)}
    if isinstance(tree, np.ndarray) and tree.dtype.kind in "biuf":
        return {"array": _put(torch.from_numpy(np.array(tree, order="C")), path, tensors)}
    if isinstance(tree, dict):
        return {"dict": [[_key(key, path), _flatten(tree[key], f"{path}.{key}", tensors)] for key in tree]}
    if isinstance(tree, list | tuple):
        items = [_flatten(item, f"{path}.{index}", tensors) for index, item in enumerate(tree)]
        return {"list" if isinstance(tree, list) else "tuple": items}
    raise CheckpointError(
        f"{path} is a {type(tree).__name__}, which a checkpoint cannot hold: store tensors, arrays, numbers, "
        "strings, booleans, None, and dictionaries, lists and tuples of them"
    )


def _put(tensor: Tensor, path: str, tensors: dict[str, Tensor]) -> str:
    """Add the tensor under a name that no other has: the paths of {"a.b": ...} and {"a": {"b": ...}} are one."""
    while path in tensors:
        path += "'"
    tensors[path] = tensor
    return path


def _key(key: object, path: str) -> str | int:
    if isinstance(key, str) or (isinstance(key, int) and not isinstance(key, bool)):
        return key
    raise CheckpointError(f"{path} has the key {key!r}; a checkpoint holds dictionaries keyed by str or int")


def unflatten(tensors: dict[str, Tensor], structure: Structure) -> Tree:
    """Return the tree that `flatten` took apart.

    Raises:
        CheckpointError: a structure that `flatten` did not make, or a tensor that is missing.
    """
    try:
        return _unflatten(tensors, structure)
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"the checkpoint's structure does not fit its tensors: {error!r}") from error


def _unflatten(tensors: dict[str, Tensor], structure: Structure) -> Tree:
    if not isinstance(structure, dict):
        return structure
    ((kind, content),) = structure.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "array":
        return tensors[content].numpy()
    if kind == "dict":
        return {key: _unflatten(tensors, item) for key, item in content}
    items = [_unflatten(tensors, item) for item in content]
    return {"list": list, "tuple": tuple}[kind](items)


def packed(tree: Tree) -> tuple[bytes, str]:
    """Return `tree` in a form that can be sent to another process: safetensors and JSON."""
    tensors, structure = flatten(tree)
    return safetensors.torch.save(tensors), json.dumps(structure)


def unpacked(content: tuple[bytes, str]) -> Tree:
    """Return the tree that `packed` packed."""
    return unflatten(safetensors.torch.load(content[0]), json.loads(content[1]))


def random_state() -> Tree:
    """Return the state of the random generators of torch (on CUDA too), Python and numpy."""
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    state = np.random.get_state(legacy=False)
    return {"torch": torch.get_rng_state(), "cuda": cuda, "python": random.getstate(), "numpy": state}


def set_random_state(state: Tree) -> None:
    """Set the random generators to what `random_state` returned.

    CUDA's are set only where there are as many devices as before; a run moved elsewhere draws anew.
    """
    torch.set_rng_state(state["torch"])
    if state["cuda"] and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
    random.setstate(state["python"])
    np.random.set_state(state["numpy"])
