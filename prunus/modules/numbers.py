"""Whole numbers that modules keep as attributes, alone or in lists."""

from collections.abc import Iterator

from torch import nn

from prunus.modules.noted_numbers import set_number_at_


def numbers(module: nn.Module) -> Iterator[tuple[str, int, int]]:
    """Yield (attribute, index in it or -1, value) of the whole numbers above one that a module keeps."""
    for name, value in vars(module).items():
        if name.startswith("__"):
            continue
        if type(value) is int and value > 1:
            yield name, -1, value
        elif isinstance(value, list | tuple):
            yield from ((name, item, entry) for item, entry in enumerate(value) if type(entry) is int and entry > 1)


def set_number_(model: nn.Module, path: str, name: str, item: int, value: int) -> None:
    """Set the number `name` of the module at `path`, or its item at index `item` unless that is -1.

    `name` is an attribute, or keys joined with dots (`prunus.modules.noted_numbers`).
    """
    set_number_at_(model.get_submodule(path), name if item < 0 else f"{name}.{item}", value)
