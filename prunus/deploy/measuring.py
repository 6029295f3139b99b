"""Checks of a target against its backend: whether it is valid and available; and the key of its measurements."""

from typing import Any

from prunus.budget.target import Target
from prunus.deploy import backends
from prunus.deploy.backends import BACKENDS, Backend
from prunus.deploy.kit_script import processor
from prunus.errors import DeployError, RecipeError


def checked_device(target: Target) -> str:
    """Return the device of `target`, the backend's own for "auto".

    Raises:
        RecipeError: there is no such backend, or it has no such precision or device; the message lists what exists.
    """
    found = _find(target.backend)
    if target.precision not in found.precisions:
        offered = "; ".join(f"{name}: {', '.join(one.precisions)}" for name, one in BACKENDS.items())
        raise RecipeError(f"{target.backend} does not support precision {target.precision!r}; supported: {offered}")
    device = found.device if target.device == "auto" else target.device
    if device != found.device and not device.startswith(f"{found.device}:"):
        raise RecipeError(f"{target.backend} runs on {found.device!r}, not on {device!r}")
    return device


def require(target: Target) -> Backend:
    """Return the backend of `target`.

    Raises:
        DeployError: it cannot be used on this machine; the message says how to install it and lists the others.
    """
    found = _find(target.backend)
    reason = found.absence() or (found.quantizer_absence() if target.precision == "int8" else None)
    if reason is not None:
        there = ", ".join(name for name, one in BACKENDS.items() if one.absence() is None)
        raise DeployError(f"{target.backend} cannot be used: {reason}. Available: {there}")
    return found


def key(target: Target) -> dict[str, Any]:
    """Return everything besides shapes that milliseconds measured on `target` depend on."""
    known = {name: getattr(target, name) for name in ("backend", "device", "threads", "precision")}
    if target.remote:  # its table holds the rest
        return known
    return {**known, "version": require(target).version(), "processor": processor()}


def _find(name: str) -> Backend:
    """Return the backend `name`; if there is none, the error lists the available backends and how to get the others."""
    try:
        return backends.find(name)
    except RecipeError as error:
        states = {known: backend.absence() for known, backend in BACKENDS.items()}
        here = ", ".join(known for known, reason in states.items() if reason is None)
        absent = "".join(f"; {known}: {reason}" for known, reason in states.items() if reason is not None)
        raise RecipeError(f"{error}. Usable here: {here}{absent}") from error
