"""Torch's default device: Prunus computes on the CPU or beside the network's own tensors, whatever it is set to."""

import contextlib
import functools
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import ParamSpec, TypeVar

import torch

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")
_USERS: ContextVar[torch.device | None] = ContextVar("users", default=None)


def whatever_device(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """Let `function` make tensors on the CPU where it names no device; the network's own code does as it did."""

    @functools.wraps(function)
    def call(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        users = torch.get_default_device()
        if users.type == "cpu":
            return function(*args, **kwargs)
        token = _USERS.set(_USERS.get() or users)
        try:
            with torch.device("cpu"):
                return function(*args, **kwargs)
        finally:
            _USERS.reset(token)

    return call


@contextlib.contextmanager
def users_device() -> Iterator[None]:
    """Run code of the network: tensors that it makes lie where the user has set the default device."""
    users = _USERS.get()
    with torch.device(users) if users is not None else contextlib.nullcontext():
        yield
