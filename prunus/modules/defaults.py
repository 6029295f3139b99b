"""Torch's default device: whatever it is, Prunus computes on the CPU or on the device of the network's tensors."""

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
    """Let `function` make tensors on the CPU by default; the network's own code keeps the user's default device."""

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
    """Restore the user's default device within the context, to run the network's own code."""
    users = _USERS.get()
    with torch.device(users) if users is not None else contextlib.nullcontext():
        yield
