"""The interface of a backend, which loads a network into a session, and of the session, which runs it."""

import abc
import contextlib
import dataclasses
import importlib
import importlib.metadata
import math
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

import numpy as np
from torch import nn

from prunus.errors import DeployError, PrunusError

Shape = tuple[int, ...]
Network = Path | nn.Module


@dataclasses.dataclass(frozen=True)
class NodeTime:
    """One operator in a runtime's profile."""

    name: str
    kind: str
    milliseconds: float


class Session(abc.ABC):
    """A loaded network; a context manager that releases its memory and threads at the end.

    Attributes:
        device: where it runs, "cpu" or "cuda:0".
        precision: the dtype of its computation, "float32".
    """

    device: str
    precision: str

    @abc.abstractmethod
    def run(self, inputs: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
        """Return the outputs by name, in the network's order."""

    @abc.abstractmethod
    def bind(self, inputs: Sequence[np.ndarray]) -> Callable[[], None]:
        """Return a function that runs the network once on `inputs` and returns when it has finished.

        Inputs are placed on the device beforehand and outputs stay there, so that the duration of the call is the
        network's latency without copies.
        """

    @abc.abstractmethod
    def close(self) -> None:
        """Release memory and restore settings; the session must not be used again."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Backend(abc.ABC):
    """A runtime that networks are deployed on. Final classes take no arguments and keep no state.

    Attributes:
        name: its name in settings and records.
        reads_modules: whether it loads an `nn.Module`; the others read an ONNX file.
        precisions: precisions in which Prunus can measure it.
        device: where it runs, "cpu" or "cuda".
        package: name of the Python package that provides it.
        layout: kinds of operators in its profile that change a tensor's layout or convert to and from INT8; inside a
            network they are rare.
        int8_suffix: suffix of the files that `quantize` writes.
    """

    name: ClassVar[str]
    reads_modules: ClassVar[bool]
    precisions: ClassVar[tuple[str, ...]] = ("fp32",)
    device: ClassVar[str] = "cpu"
    package: ClassVar[str] = ""
    layout: ClassVar[tuple[str, ...]] = ()
    int8_suffix: ClassVar[str] = ".onnx"

    def version(self) -> str:
        """Return the version of the runtime, or "unknown"."""
        try:
            return importlib.metadata.version(self.package) if self.package else "unknown"
        except importlib.metadata.PackageNotFoundError:
            return "unknown"

    def profile(self, network: Network, inputs: Sequence[np.ndarray], threads: int, repeats: int) -> list[NodeTime]:
        """Return the time of each operator from the runtime's own profile, the minimum over `repeats` runs.

        The default is for runtimes without a profile: it returns the whole run as one operator.

        Raises:
            DeployError: the network cannot be loaded or run.
        """
        with self.load(network, [array.shape for array in inputs], threads) as session:
            call, least = session.bind(inputs), math.inf
            for _ in range(repeats):
                began = time.perf_counter()
                call()
                least = min(least, time.perf_counter() - began)
        return [NodeTime("", "network", 1000 * least)]

    def unit_milliseconds(self, network: Network, inputs: Sequence[np.ndarray], threads: int, repeats: int) -> float:
        """Return the milliseconds of a network of one operator, without layout changes before and after it."""
        times = self.profile(network, inputs, threads, repeats)
        return sum(one.milliseconds for one in times if one.kind not in self.layout)

    @abc.abstractmethod
    def absence(self) -> str | None:
        """Return why this backend cannot be used on this machine and what to do; None if it can be used."""

    def quantizer_absence(self) -> str | None:
        """Return why this backend's INT8 tool is not available, and what to do; None if it is."""
        return f"{self.name} has no tool for INT8 here"

    def quantize(self, path: Path, output: Path, batches: Sequence[tuple[np.ndarray, ...]]) -> None:
        """Write the network in the ONNX file `path` in INT8 to `output`, calibrated on `batches` of its inputs.

        Raises:
            DeployError: the tool does not support the network, or there is no tool.
        """
        raise DeployError(f"{path} cannot be quantised: {self.quantizer_absence()}")

    @abc.abstractmethod
    def load(self, network: Network, shapes: Sequence[Shape], threads: int) -> Session:
        """Load `network` for inputs of exactly `shapes` [N, ...], to run on `threads` CPU threads.

        Raises:
            DeployError: the network cannot be read or does not accept such inputs.
        """


def missing_library(library: str, install: str) -> str | None:
    """Return why `library` cannot be imported, with the remedy `install`; None if it can be imported."""
    try:
        importlib.import_module(library)
    except ImportError as error:
        return f"{library} cannot be imported ({error}); {install}"
    return None


def onnx_file(network: Network, backend: str) -> Path:
    """Return `network`, which must be an existing file.

    Raises:
        DeployError: it is a module, or the file does not exist.
    """
    if not isinstance(network, Path):
        raise DeployError(
            f"{backend} reads ONNX files, not a {type(network).__name__}: write it with prunus.export_onnx first"
        )
    if not network.is_file():
        raise DeployError(f"{network} does not exist: {backend} needs an ONNX file, see prunus.export_onnx")
    return network


def check_number(expected: int, given: int) -> None:
    """Raise `ValueError` unless a network gets as many inputs as it has."""
    if expected != given:
        raise ValueError(f"the network has {expected} inputs, {given} are given")


@contextlib.contextmanager
def refusals(doing: str, remedy: str) -> Iterator[None]:
    """Turn any exception of a runtime into a `DeployError`: runtimes share no exception type to catch."""
    try:
        yield
    except PrunusError:
        raise
    except Exception as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        reason = " ".join(lines)[:600] or type(error).__name__
        raise DeployError(f"{doing} failed: {reason}. {remedy}") from error
