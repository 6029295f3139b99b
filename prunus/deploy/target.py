"""Target: where a network will run, and so where its milliseconds are measured."""

import dataclasses
import platform
from pathlib import Path
from typing import Any

from prunus.deploy import backends
from prunus.deploy.backends import BACKENDS, Backend
from prunus.deploy.room import MOST_THREADS
from prunus.errors import DeployError, RecipeError

PRECISIONS = ("fp32", "fp16", "bf16", "int8")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Target:
    """A backend on a machine, and how it is used there.

    Attributes:
        backend: a name from `prunus.deploy.backends`, or the dotted path of a private one.
        device: "cpu", or the device that a backend of its own runs on.
        precision: in which it computes: "fp32"; see `Backend.precisions` for what each backend offers here.
        threads: CPU threads that the network gets.
        batch: N of the inputs.
        resolution: height and width of the images; None: the example's.
    """

    backend: str = "onnxruntime"
    device: str = "cpu"
    precision: str = "fp32"
    threads: int = 1
    batch: int = 1
    resolution: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        found = _find(self.backend)
        if self.precision not in found.precisions:
            offered = "; ".join(f"{name}: {', '.join(one.precisions)}" for name, one in BACKENDS.items())
            what = "is measured on" if self.precision in PRECISIONS else "is known, let alone on"
            raise RecipeError(f"no precision {self.precision!r} {what} {self.backend}; there are {offered}")
        if self.device != found.device and not self.device.startswith(f"{found.device}:"):
            raise RecipeError(f"{self.backend} runs on {found.device!r}, not on {self.device!r}")
        for name, most in (("threads", MOST_THREADS), ("batch", 2**20)):
            value = getattr(self, name)
            if type(value) is not int or not 1 <= value <= most:
                raise RecipeError(f"Target.{name} is {value!r}: a whole number from 1 to {most}")
        size = self.resolution
        if size is not None:
            if len(size) != 2 or any(type(side) is not int or side < 1 for side in size):
                raise RecipeError(f"Target.resolution is {size!r}: height and width in pixels, as in (512, 1024)")
            object.__setattr__(self, "resolution", tuple(size))

    def require(self) -> Backend:
        """Return the backend.

        Raises:
            DeployError: it cannot be used on this machine; says how to install it, and what else is there.
        """
        found = _find(self.backend)
        reason = found.absence() or (found.quantizer_absence() if self.precision == "int8" else None)
        if reason is not None:
            there = ", ".join(name for name, one in BACKENDS.items() if one.absence() is None)
            raise DeployError(f"{self.backend} cannot be used: {reason}. Backends that are here: {there}")
        return found

    def key(self) -> dict[str, Any]:
        """Return what measured milliseconds depend on besides shapes: they hold for no other machine or version."""
        return {
            "backend": self.backend,
            "version": self.require().version(),
            "device": self.device,
            "processor": processor(),
            "threads": self.threads,
            "precision": self.precision,
        }


def processor() -> str:
    """Return the name of this machine's processor."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _find(name: str) -> Backend:
    """Return a backend; where there is none of this name, say what is here and how to get the rest."""
    try:
        return backends.find(name)
    except RecipeError as error:
        states = {known: backend.absence() for known, backend in BACKENDS.items()}
        here = ", ".join(known for known, reason in states.items() if reason is None)
        absent = "".join(f"; {known}: {reason}" for known, reason in states.items() if reason is not None)
        raise RecipeError(f"{error}. Here are {here}{absent}") from error
