"""Read a network: run its code once, on a copy, and return the operators that it called."""

import contextlib
import dataclasses
import io
import logging
import random
import traceback
import warnings
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from prunus.errors import TraceError
from prunus.graph.program import Origin, Program, Value
from prunus.graph.recorder import Functions, Recorder, ValueDependenceError
from prunus.modules.code import surroundings_kept
from prunus.modules.cutting import Keep
from prunus.modules.kinds import BatchNorm
from prunus.modules.stand_in import Setting, fed, stand_in

MOST_SAID = 300  # characters of what torch says
PLAIN = (int, float, complex, str, bytes, type(None), torch.dtype, torch.device, torch.Size)
OWN = str(Path(__file__).parent)
FOREIGN = (str(Path(torch.__file__).parent), str(Path(__file__).parents[1]), str(Path(traceback.__file__).parent))


@dataclasses.dataclass(frozen=True)
class Place:
    """Where something went wrong: the path of the module and "file:line" of the user's code, "" where unknown."""

    module: str = ""
    line: str = ""


class ReadError(TraceError):
    """The network's code cannot be read with these inputs, at these widths.

    Attributes:
        place: where.
        reason: the first line of what was raised there.
        by_values: whether the code asks for values that depend on the network's input.
    """

    def __init__(self, message: str, place: Place, reason: str, *, by_values: bool) -> None:
        super().__init__(message)
        self.place, self.reason, self.by_values = place, reason, by_values


def read(
    model: nn.Module,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any] | None = None,
    *,
    training: bool = False,
    keep: Keep | None = None,
    settings: Iterable[Setting] = (),
    with_values: bool | None = None,
) -> Program:
    """Return what the code of `model` does with an example. It runs on a copy: nothing of the user's changes.

    Args:
        model: the network.
        args: its positional arguments.
        kwargs: its keyword arguments.
        training: the mode. Batch norms with running statistics stay in evaluation: their channels are related alike,
            and an example of one image may have no variance.
        keep: indices of parameters and buffers that stay, for a narrower network.
        settings: attributes of modules that count channels.
        with_values: run on numbers rather than on the meta device; by default where the code does not run there.

    Raises:
        ReadError: the code raises an exception, or decides by values.
    """
    if with_values is None:
        try:
            return read(model, args, kwargs, training=training, keep=keep, settings=settings, with_values=False)
        except ReadError as error:
            if error.by_values:
                raise
        with_values = True
    small = stand_in(model, keep or {}, settings, with_values=with_values)
    given = fed((tuple(args), dict(kwargs or {})), with_values=with_values)
    device = next((t.device for t in (*model.parameters(), *model.buffers(), *_tensors(args))), torch.device("cpu"))
    recorder = Recorder(device, with_values=with_values)
    with _scopes(small, recorder), _undisturbed(model):
        try:
            outputs = _run(small, given, recorder, training=training)
        except Exception as error:  # whatever the user's own code raises
            raise _explained(small, given, error) from error
        finally:
            recorder.close()
    return Program(recorder.given, recorder.operations, outputs, training, with_values)


def _run(model: nn.Module, given: Any, recorder: Recorder, *, training: bool) -> list[Value]:
    """Run the copy and return the values of its outputs."""
    for origin, named in ((Origin.PARAMETER, model.named_parameters()), (Origin.BUFFER, model.named_buffers())):
        for path, tensor in named:
            recorder.add(tensor, origin, path)
    for tensor in _tensors(given):
        recorder.add(tensor, Origin.INPUT)
    with recorder, Functions(recorder):
        _set_mode(model, training=training)
        outputs = model(*given[0], **given[1])
        return [recorder.value_of(tensor) for tensor in _tensors(outputs, strict=True)]


def _set_mode(model: nn.Module, *, training: bool) -> None:
    try:
        model.train(training)
    except NotImplementedError:  # an exported module has no modes
        for module in model.modules():
            module.training = training
    for module in model.modules():
        if isinstance(module, BatchNorm) and module.track_running_stats:
            module.training = False


@contextlib.contextmanager
def _scopes(model: nn.Module, recorder: Recorder) -> Iterator[None]:
    """Let the recorder know which module is running."""

    def hooks(path: str) -> tuple[Any, Any]:
        def enter(module: nn.Module, args: Any) -> None:
            recorder.scopes.append(path)

        def leave(module: nn.Module, args: Any, output: Any) -> None:
            recorder.scopes.pop()

        return enter, leave

    for path, module in model.named_modules():
        if not isinstance(module, torch.jit.ScriptModule):
            enter, leave = hooks(path)
            module.register_forward_pre_hook(enter, prepend=True)
            module.register_forward_hook(leave, always_call=True)
    yield


@contextlib.contextmanager
def _undisturbed(model: nn.Module) -> Iterator[None]:
    """Run code without gradients, without a word, and without a trace in random numbers and in the user's variables."""
    level, nowhere = logging.root.manager.disable, io.StringIO()
    fast, states = torch.backends.mha.get_fastpath_enabled(), (random.getstate(), np.random.get_state())
    torch.backends.mha.set_fastpath_enabled(False)  # a path of its own, for evaluation without gradients
    logging.disable(logging.ERROR)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(nowhere),
            contextlib.redirect_stderr(nowhere),
            torch.random.fork_rng(devices=[]),
            torch.compiler.set_stance("force_eager"),
            surroundings_kept(model),
            torch.inference_mode(),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
        torch.backends.mha.set_fastpath_enabled(fast)
        random.setstate(states[0])
        np.random.set_state(states[1])


def _tensors(value: Any, *, strict: bool = False) -> list[Tensor]:
    """Return the tensors in what a network takes or returns; with `strict`, refuse objects that may hide some."""
    found = list[Tensor]()
    for leaf in pytree.tree_leaves(value):
        if isinstance(leaf, Tensor):
            found.append(leaf)
        elif dataclasses.is_dataclass(leaf) and not isinstance(leaf, type):
            found += _tensors([getattr(leaf, field.name) for field in dataclasses.fields(leaf)], strict=strict)
        elif isinstance(leaf, Mapping):
            found += _tensors(list(leaf.values()), strict=strict)
        elif strict and not isinstance(leaf, PLAIN):
            raise TypeError(
                f"the network returns a {type(leaf).__name__}, in which nothing tells where the tensors are: let it "
                "return tensors, tuples, lists, dictionaries or dataclasses of them"
            )
    return found


def _explained(model: nn.Module, given: Any, error: Exception) -> ReadError:
    name, text = type(model).__name__, str(error).strip()
    inputs = ", ".join(f"{tuple(a.shape)} {a.dtype}" if isinstance(a, Tensor) else type(a).__name__ for a in given[0])
    first = text.splitlines()[0][:MOST_SAID] if text else type(error).__name__
    place = _place(error, model)
    by_values = isinstance(error, ValueDependenceError)
    at = f" at {place.line}" if place.line else ""
    message = f"{name} cannot be run on inputs ({inputs}){at}: {type(error).__name__}: {first}"
    if by_values:
        message = (
            f"{name} decides by the values of a tensor{at}, so it has no single graph: {first}. "
            "Trace the submodule that has none of this (the backbone, the head), and edit it in place"
        )
    return ReadError(message, place, first, by_values=by_values)


def _place(error: BaseException, model: nn.Module) -> Place:
    """Return where in the user's own code an error arose: the innermost line that is neither torch's nor ours."""
    paths = {id(module): path for path, module in model.named_modules()}
    module, line = "", ""
    for frame, number in traceback.walk_tb(error.__traceback__):
        module = paths.get(id(frame.f_locals.get("self")), module)
        file = frame.f_code.co_filename
        if not file.startswith((FOREIGN[0], OWN)):
            line = f"{file}:{number}"
    return Place(module, line)
