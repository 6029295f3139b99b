"""Target: where a network will run, and its latency is measured."""

import dataclasses
from typing import Any

from prunus import backends
from prunus.backends import BACKENDS, Backend
from prunus.decoding import DecodingError
from prunus.errors import DeployError, RecipeError
from prunus.yaml_text import from_yaml

MOST_THREADS = 1024


@dataclasses.dataclass(frozen=True, kw_only=True)
class Target:
    """A backend on a machine, and its settings.

    Attributes:
        backend: a name from `prunus.backends`, or the dotted path of a private one.
        device: "cpu", or the device that the backend runs on; "auto": the backend's default.
        precision: number format: "fp32"; see `Backend.precisions` for what each backend offers here.
        threads: CPU threads for the network.
        batch: N of the inputs.
        resolution: height and width of the images; None: those of the example.
        table: file of measured milliseconds, reused and extended; None: no file.
        remote: the target is another machine, whose times are in `table` (`prunus target read`); nothing is measured
            here.
    """

    backend: str = "onnxruntime"
    device: str = "auto"
    precision: str = "fp32"
    threads: int = 1
    batch: int = 1
    resolution: tuple[int, int] | None = None
    table: str | None = None
    remote: bool = False

    def __post_init__(self) -> None:
        for name, most in (("threads", MOST_THREADS), ("batch", 2**20)):
            value = getattr(self, name)
            if type(value) is not int or not 1 <= value <= most:
                raise RecipeError(f"Target.{name} is {value!r}: a whole number from 1 to {most}")
        size = self.resolution
        if size is not None:
            if len(size) != 2 or any(type(side) is not int or side < 1 for side in size):
                raise RecipeError(f"Target.resolution is {size!r}: height and width in pixels, as in (512, 1024)")
            object.__setattr__(self, "resolution", tuple(size))
        if type(self.remote) is not bool:
            raise RecipeError(f"Target.remote is {self.remote!r}: true or false")
        if self.remote and self.table is None:
            raise RecipeError("Target.remote: another machine needs its table: give table=...")
        object.__setattr__(self, "device", self._device())

    @classmethod
    def parse(cls, text: str) -> "Target":
        """Return the target that `text` names, as on the command line: "openvino,threads=2,resolution=512x1024".

        Raises:
            RecipeError: `text` names no target.
        """
        backend, *settings = text.split(",")
        fields = {field.name for field in dataclasses.fields(cls)} - {"backend"}
        given: dict[str, Any] = {}
        for item in settings:
            name, equals, value = item.partition("=")
            if not equals or name not in fields:
                raise RecipeError(
                    f"{text!r} is not a target: {item!r} is not one of its settings; write a backend, then "
                    f"{', '.join(f'{each}=...' for each in sorted(fields))}, separated by commas"
                )
            if name in given:
                raise RecipeError(f"{text!r} gives {name} twice: keep one")
            given[name] = _size(text, value) if name == "resolution" else _value(text, value)
        return cls(backend=backend, **given)

    def __str__(self) -> str:
        shown = [self.backend]
        for field in dataclasses.fields(self)[2:]:
            value = getattr(self, field.name)
            if value != field.default:
                shown.append(f"{field.name}={'x'.join(map(str, value)) if isinstance(value, tuple) else value}")
        return ",".join(shown)

    def sized(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape of an input, [..., H, W], at this target's resolution."""
        return shape if self.resolution is None or len(shape) < 3 else (*shape[:-2], *self.resolution)

    def require(self) -> Backend:
        """Return the target's backend.

        Raises:
            DeployError: it cannot be used on this machine; says how to install it, and which others are available.
        """
        found = _find(self.backend)
        reason = found.absence() or (found.quantizer_absence() if self.precision == "int8" else None)
        if reason is not None:
            there = ", ".join(name for name, one in BACKENDS.items() if one.absence() is None)
            raise DeployError(f"{self.backend} cannot be used: {reason}. Available: {there}")
        return found

    def _device(self) -> str:
        """Return the device, the backend's own for "auto"; check that the backend has it, and the precision."""
        found = _find(self.backend)
        if self.precision not in found.precisions:
            offered = "; ".join(f"{name}: {', '.join(one.precisions)}" for name, one in BACKENDS.items())
            raise RecipeError(f"{self.backend} does not support precision {self.precision!r}; supported: {offered}")
        device = found.device if self.device == "auto" else self.device
        if device != found.device and not device.startswith(f"{found.device}:"):
            raise RecipeError(f"{self.backend} runs on {found.device!r}, not on {device!r}")
        return device


def _find(name: str) -> Backend:
    """Return the backend `name`; if there is none, the error lists the available backends and how to get the others."""
    try:
        return backends.find(name)
    except RecipeError as error:
        states = {known: backend.absence() for known, backend in BACKENDS.items()}
        here = ", ".join(known for known, reason in states.items() if reason is None)
        absent = "".join(f"; {known}: {reason}" for known, reason in states.items() if reason is not None)
        raise RecipeError(f"{error}. Usable here: {here}{absent}") from error


def _size(text: str, value: str) -> tuple[int, int]:
    height, _, width = value.partition("x")
    if not (height.isdecimal() and width.isdecimal()):
        raise RecipeError(f"{text!r}: {value!r} is not a resolution: give height x width, as in resolution=512x1024")
    return int(height), int(width)


def _value(text: str, value: str) -> Any:
    try:
        return from_yaml(value)
    except DecodingError as error:
        raise RecipeError(f"{text!r}: {value!r} is not a valid value: {error}") from error
