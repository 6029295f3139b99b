"""Check that a file computes the same as its network: PyTorch against a backend, on real samples."""

import dataclasses
import itertools
import math
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from torch import nn

from prunus import backends
from prunus.backends.signature import Inputs, as_arrays, as_tuple
from prunus.deploy.decisions import Decisions
from prunus.deploy.float64_reference import Float64Reference, remarks
from prunus.errors import DeployError, ParityError
from prunus.interrupt import check
from prunus.modules.defaults import whatever_device
from prunus.records import ParityRecord
from prunus.verify import Extremes, relatives
from prunus.verify.rounding import ROUNDINGS

TOLERANCE = 1e-4  # relative


@whatever_device
def check_parity(
    model: nn.Module,
    path: str | Path,
    samples: Inputs | Iterable[Inputs],
    *,
    backend: str = "onnxruntime",
    tolerance: float = TOLERANCE,
    threads: int = 1,
    name: str | None = None,
    decisions: Decisions | None = None,
) -> ParityRecord:
    """Run `samples` through `model` (PyTorch, evaluation mode) and through the file at `path`, and compare.

    With y the network's output and z the file's, over all samples together:
    max_abs_diff = max |y - z| over all outputs; max_rel_diff = max |y - z| / max |y| of a single output, the one that
    is largest relative to its bound;
    argmax_agreement = share of positions at which y and z have the same argmax over dimension 1, the classes (or the
    same sign if there is a single channel). A NaN or an infinity in either counts as an infinite difference. `passed`
    is max_rel_diff <= bound. The bound is `tolerance` or, if larger, ten times the output's own rounding, unless
    `tolerance` is stricter than the default. The rounding is measured on batches that differ by more than `tolerance`,
    between y and the outputs in float64, as in `prunus.verify.rounding`. `require` turns a failed record into an error;
    the record's remarks give possible reasons for the difference.

    Args:
        model: the network that was exported.
        path: the ONNX file.
        samples: a batch, or an iterable of batches; a batch is the input of forward, a tensor [N, ...] or a tuple of
            them, of any N. A tuple is one batch of several inputs; pass several batches of one input as a list.
        backend: the backend that runs the file; see `prunus.backends`.
        tolerance: bound of max_rel_diff.
        threads: CPU threads of both.
        name: name of the network in the record; the file's name without its suffix if None.
        decisions: how outputs are ordered and compared as decisions; if None, as above.

    Raises:
        ParityError: the number or shapes of the outputs differ, so the file is of another network.
        DeployError: no samples, an absent backend, or a file that does not load or run.
    """
    comparison, precise = _Comparison(decisions), Float64Reference(model)
    _compare(comparison, precise, model, Path(path), _arrays(samples), checker(backend), tolerance, threads)
    record = comparison.record(name or Path(path).stem, backend, tolerance)
    return record if record.passed else dataclasses.replace(record, remarks=remarks(model, precise))


def _compare(
    comparison: "_Comparison",
    precise: Float64Reference,
    model: nn.Module,
    path: Path,
    samples: Iterable[tuple[np.ndarray, ...]],
    chosen: backends.Backend,
    tolerance: float,
    threads: int,
) -> None:
    """Add the outputs of all samples to `comparison`."""
    for _, batches in itertools.groupby(samples, key=_shapes):  # a session takes one set of shapes
        first = next(batches)
        with (
            backends.find("torch").load(model, _shapes(first), threads) as reference,
            chosen.load(path, _shapes(first), threads) as session,
        ):
            for batch in itertools.chain((first,), batches):
                check()
                found = reference.run(batch)
                comparison.add(found, session.run(batch), path, len(batch[0]))
                if comparison.relative > tolerance and not math.isinf(comparison.relative):
                    comparison.note_rounding(found, precise(batch))


def checker(name: str) -> backends.Backend:
    """Return the backend `name`, checked to be able to run a file.

    Raises:
        DeployError: it is absent, or does not read files.
    """
    chosen = backends.find(name)
    if (reason := chosen.absence()) is not None:
        raise DeployError(f"parity cannot be checked on {name}: {reason}")
    if chosen.reads_modules:
        raise DeployError(f"parity cannot be checked on {name}: it runs modules, not files; name a backend that does")
    return chosen


def require(record: ParityRecord) -> None:
    """Raise an error unless the parity check passed.

    Raises:
        ParityError: it failed; the message says by how much, and what to check.
    """
    if record.passed:
        return
    if not math.isfinite(record.max_rel_diff):
        raise ParityError(
            f"the outputs of {record.model}, in PyTorch or on {record.backend}, are infinite, not a number, or all "
            "zero where the other's are not, so they cannot be compared: look at the network's weights first"
        )
    raise ParityError(
        f"{record.model} on {record.backend} does not equal its PyTorch source: over {record.samples} samples the "
        f"largest relative difference is {record.max_rel_diff:.2e} (tolerance {record.tolerance:.0e}), the largest "
        f"absolute one {record.max_abs_diff:.2e}, argmax agreement {record.argmax_agreement:.2%}. "
        f"{record.remarks}Export this network again; if the difference stays, raise the tolerance only where the "
        "agreement is good enough"
    )


def _arrays(samples: Inputs | Iterable[Inputs]) -> Iterable[tuple[np.ndarray, ...]]:
    """Yield the batches as arrays; refuse an input without a batch dimension, and an empty set of samples."""
    single = isinstance(samples, torch.Tensor | tuple)
    number = 0
    for number, batch in enumerate((samples,) if single else samples, 1):
        tensors = as_tuple(batch)
        if any(tensor.ndim == 0 or tensor.shape[0] == 0 for tensor in tensors):
            raise DeployError(f"batch {number} has an input without samples: give tensors [N, ...] with N >= 1")
        yield as_arrays(tensors)
    if not number:
        raise DeployError("there are no samples to check parity on: give at least one batch [N, ...]")


def _shapes(batch: tuple[np.ndarray, ...]) -> tuple[tuple[int, ...], ...]:
    return tuple(array.shape for array in batch)


@dataclasses.dataclass
class _Comparison:
    """Running extremes, so that the samples need not fit into memory together."""

    decisions: Decisions | None = None
    samples: int = 0
    decided: bool = False  # whether `decisions` counts the agreement
    agreeing: int = 0
    positions: int = 0
    extremes: dict[str, Extremes] = dataclasses.field(default_factory=dict)
    own: dict[str, Extremes] = dataclasses.field(default_factory=dict)  # of the network's outputs against float64

    def add(self, source: dict[str, np.ndarray], exported: dict[str, np.ndarray], path: Path, samples: int) -> None:
        """Compare one batch's outputs by position, since their names may differ in the file."""
        if len(source) != len(exported):
            raise ParityError(
                f"{path} has {len(exported)} outputs ({', '.join(exported)}), the network {len(source)} "
                f"({', '.join(source)}): it is another network's file; export this one"
            )
        self.samples += samples
        renamed = dict(zip(source, exported.values(), strict=True))
        for name, expected in source.items():
            actual = renamed[name]
            if expected.shape != actual.shape:
                raise ParityError(
                    f"output {name!r} is {list(expected.shape)} in PyTorch and {list(actual.shape)} from {path}: it is "
                    "another network's file, or the file fixes the batch size; export this network"
                )
        if self.decisions is not None:
            source, renamed = self._decided(self.decisions, source, renamed)
        for name, expected in source.items():
            self._add_output(self.extremes.setdefault(name, Extremes()), expected, renamed[name])

    def _decided(
        self, decisions: Decisions, source: dict[str, np.ndarray], exported: dict[str, np.ndarray]
    ) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Count the decisions that agree; return the outputs in comparable order."""
        tensors = [{name: torch.from_numpy(array) for name, array in each.items()} for each in (source, exported)]
        if (found := decisions.agreement(*tensors)) is not None:
            self.decided, self.agreeing, self.positions = True, self.agreeing + found[0], self.positions + found[1]
        first, second = decisions.comparable(*tensors)
        return {name: each.numpy() for name, each in first.items()}, {
            name: each.numpy() for name, each in second.items()
        }

    def _add_output(self, extremes: Extremes, expected: np.ndarray, actual: np.ndarray) -> None:
        extremes.add(torch.tensor(expected, dtype=torch.float64), torch.tensor(actual, dtype=torch.float64))
        if not (np.isfinite(expected).all() and np.isfinite(actual).all()):  # even if equal: it shows nothing
            extremes.difference = math.inf
        if not self.decided:
            same = _decision(expected) == _decision(actual)
            self.agreeing += int(same.sum())
            self.positions += same.size

    @property
    def relative(self) -> float:
        """The largest relative difference so far."""
        return max(relatives(list(self.extremes.values())))

    def note_rounding(self, source: dict[str, np.ndarray], double: list[np.ndarray] | None) -> None:
        """Add the difference between the network's outputs and those in float64, if these are known."""
        if double is None or len(double) != len(source):
            return
        for (name, own), precise in zip(source.items(), double, strict=True):
            noted = self.own.setdefault(name, Extremes())
            noted.add(torch.tensor(precise), torch.tensor(own, dtype=torch.float64))

    def record(self, model: str, backend: str, tolerance: float) -> ParityRecord:
        """Return the result, with `tolerance` or each output's own rounding, if larger, as the bound."""
        names, found = list(self.extremes), relatives(list(self.extremes.values()))
        scales = [self.extremes[name].magnitude for name in self.own]
        rounding = dict(zip(self.own, relatives(list(self.own.values()), scales), strict=True))
        allowed = dict.fromkeys(names, tolerance)
        if tolerance >= TOLERANCE:
            allowed |= {name: max(tolerance, ROUNDINGS * u) for name, u in rounding.items() if math.isfinite(u)}
        relative, bound = max(
            ((each, allowed[name]) for name, each in zip(names, found, strict=True)), key=lambda one: one[0] / one[1]
        )
        return ParityRecord(
            model=model,
            backend=backend,
            samples=self.samples,
            max_abs_diff=max(extremes.difference for extremes in self.extremes.values()),
            max_rel_diff=relative,
            argmax_agreement=self.agreeing / self.positions if self.positions else 1.0,
            tolerance=bound,
            passed=relative <= bound,
        )


def _decision(output: np.ndarray) -> np.ndarray:
    """Return the decision at each position: the class, or the sign of a single channel."""
    classes = output.ndim >= 2 and output.shape[1] > 1
    decided: np.ndarray = np.argmax(output, axis=1) if classes else np.greater(output, 0)
    return decided
