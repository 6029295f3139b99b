"""State trees, as `state_dict()` and random generators return them, as tensors and JSON: exact and without pickle.

`flatten` splits a tree of dictionaries, lists, tuples, tensors, numpy arrays, numbers, strings, booleans and
None into named tensors and a structure that JSON can hold; `unflatten` restores the tree. Types
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
        CheckpointError: a leaf or a key has a type that cannot be stored; names its path.
    """
    tensors: dict[str, Tensor] = {}
    return tensors, _flatten(tree, name, tensors)


def _flatten(tree: Tree, path: str, tensors: dict[str, Tensor]) -> Structure:
    if tree is None or isinstance(tree, bool | str):
        return tree
    if isinstance(tree, int | float):  # includes numpy's float64, which is restored as a float
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
    """Add the tensor under a unique name and return it: {"a.b": ...} and {"a": {"b": ...}} have the same path."""
    while path in tensors:
        path += "'"
    tensors[path] = tensor
    return path


def _key(key: object, path: str) -> str | int:
    if isinstance(key, str) or (isinstance(key, int) and not isinstance(key, bool)):
        return key
    raise CheckpointError(f"{path} has the key {key!r}; a checkpoint holds dictionaries keyed by str or int")


def unflatten(tensors: dict[str, Tensor], structure: Structure) -> Tree:
    """Return the tree that `flatten` split.

    Raises:
        CheckpointError: `flatten` did not make the structure, or a tensor is missing.
    """
    return _unflatten(tensors, structure, "state")


def _unflatten(tensors: dict[str, Tensor], structure: Structure, path: str) -> Tree:
    if structure is None or isinstance(structure, bool | int | float | str):
        return structure
    kind, content = next(iter(structure.items())) if isinstance(structure, dict) and len(structure) == 1 else ("", None)
    if kind in ("tensor", "array"):
        if not isinstance(content, str) or content not in tensors:
            raise _misfit(path, f"is the {kind} {content!r:.60}, which the checkpoint does not hold")
        tensor = tensors[content]
        if kind == "array" and tensor.dtype == torch.bfloat16:
            raise _misfit(path, f"is an array of {tensor.dtype}, which numpy does not have")
        return tensor if kind == "tensor" else tensor.numpy()
    if kind == "dict" and isinstance(content, list):
        return {_key_of(pair, path): _unflatten(tensors, pair[1], f"{path}.{pair[0]}") for pair in content}
    if kind in ("list", "tuple") and isinstance(content, list):
        items = [_unflatten(tensors, item, f"{path}.{index}") for index, item in enumerate(content)]
        return items if kind == "list" else tuple(items)
    raise _misfit(path, f"is {structure!r:.60}, which `flatten` does not produce")


def _key_of(pair: Structure, path: str) -> str | int:
    if not isinstance(pair, list) or len(pair) != 2 or type(pair[0]) not in (str, int):
        raise _misfit(path, f"holds {pair!r:.60} and not a key with its value")
    key: str | int = pair[0]
    return key


def _misfit(path: str, problem: str) -> CheckpointError:
    return CheckpointError(f"the checkpoint's structure does not fit its tensors: {path} {problem}")


def packed(tree: Tree) -> tuple[bytes, str]:
    """Return `tree` in a form to send to another process: safetensors and JSON."""
    tensors, structure = flatten(tree)
    return safetensors.torch.save(tensors), json.dumps(structure)


def unpacked(content: tuple[bytes, str]) -> Tree:
    """Return the tree that `packed` packed."""
    return unflatten(safetensors.torch.load(content[0]), json.loads(content[1]))


def random_state() -> Tree:
    """Return the states of the random generators of torch (CUDA included), Python and numpy."""
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    state = np.random.get_state(legacy=False)
    return {"torch": torch.get_rng_state(), "cuda": cuda, "python": random.getstate(), "numpy": state}


def set_random_state(state: Tree) -> None:
    """Set the random generators to what `random_state` returned.

    CUDA's are set only if the number of devices is unchanged; a run moved elsewhere draws new numbers.
    """
    torch.set_rng_state(state["torch"])
    if state["cuda"] and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
    random.setstate(state["python"])
    np.random.set_state(state["numpy"])
