"""Read a network: run its code once, on a copy, and return the operators that it called."""

import dataclasses
import traceback
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from prunus.errors import TraceError
from prunus.modules.cutting import Keep
from prunus.modules.defaults import users_device
from prunus.modules.given import tensors_in, unusable
from prunus.modules.modes import set_mode_
from prunus.modules.stand_in import Setting, fed, is_mask, stand_in
from prunus.modules.undisturbed import undisturbed
from prunus.program.functions import Functions
from prunus.program.meta import ValueDependenceError
from prunus.program.operations import Mode, Origin, Program, Value
from prunus.program.recorder import FOREIGN, OperationRecorder

MOST_SAID = 300  # characters of torch's error message


@dataclasses.dataclass(frozen=True)
class Place:
    """The place of an error: the path of the module and "file:line" of the user's code, "" where unknown."""

    module: str = ""
    line: str = ""


class ReadError(TraceError):
    """The network's code cannot be read with these inputs, at these widths.

    Attributes:
        place: the place of the error.
        reason: the first line of the exception's message.
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
    with_values: bool | None = None,
    keep: Keep | None = None,
    settings: Iterable[Setting] = (),
    like: Program | None = None,
) -> Program:
    """Return the operators that the code of `model` calls on an example. It runs on a copy; the model is not changed.

    Args:
        model: the network.
        args: its positional arguments.
        kwargs: its keyword arguments.
        training: run in training mode. Batch norms with running statistics stay in evaluation: they relate channels in
            the same way, and an example of one image may have no variance.
        with_values: run on real tensors rather than on the meta device; by default only if the code fails there. So are
            boolean buffers given values only if the code needs them.
        keep: indices of parameters and buffers to keep, for a narrower network.
        settings: new values of attributes of modules that count channels.
        like: the program of the network as it is, for a narrower one that is read in the same mode.

    Raises:
        ReadError: the code raises an exception, or its control flow depends on values.
        TraceError: the model's code cannot be run at all.
    """
    if (unread := unusable(model)) is not None:
        raise TraceError(unread)
    given, change = (tuple(args), dict(kwargs or {})), (keep or {}, tuple(settings))
    *first, last = [like.mode] if like is not None else _modes(model, training, with_values)
    for mode in first:
        try:
            return _read(model, given, change, mode)
        except ReadError as error:
            if error.by_values and mode.with_masks:
                raise
    return _read(model, given, change, last)


def _modes(model: nn.Module, training: bool, with_values: bool | None) -> list[Mode]:
    """Return the modes to try, each of which gives the code more values."""
    if with_values is not None:
        return [Mode(training, with_values)]
    masks = (False, True) if any(map(is_mask, model.buffers())) else (True,)
    return [*(Mode(training, with_values=False, with_masks=each) for each in masks), Mode(training, with_values=True)]


def _read(model: nn.Module, given: Any, change: tuple[Keep, tuple[Setting, ...]], mode: Mode) -> Program:
    small, with_values = model, mode.with_values
    tensors = (*model.parameters(), *model.buffers(), *tensors_in(given[0]))
    device = next((tensor.device for tensor in tensors), torch.device("cpu"))
    recorder = OperationRecorder(device, with_values=with_values, large=mode.large)
    with undisturbed(model), torch.inference_mode():
        try:
            small = stand_in(model, *change, with_values=with_values, with_masks=mode.with_masks)
            _let_know(small, recorder)
            outputs = _run(small, fed(given, with_values=with_values), recorder, training=mode.training)
        except Exception as error:  # whatever the user's own code raises
            raise _explained(small, given, error) from error
        finally:
            recorder.memory.restore()
    mode = dataclasses.replace(mode, large=recorder.large)
    return Program(recorder.given, recorder.operations, outputs, recorder.passed, mode)


def _run(model: nn.Module, given: Any, recorder: OperationRecorder, *, training: bool) -> list[Value]:
    """Run the copy and return the values of its outputs."""
    for origin, named in ((Origin.PARAMETER, model.named_parameters()), (Origin.BUFFER, model.named_buffers())):
        for path, tensor in named:
            recorder.add(tensor, origin, path)
    for tensor in tensors_in(given):
        recorder.add(tensor, Origin.INPUT)
    with recorder, Functions(recorder):
        set_mode_(model, training=training)
        with users_device():
            outputs = model(*given[0], **given[1])
        return [recorder.value_of(tensor) for tensor in tensors_in(outputs, strict=True)]


def _let_know(model: nn.Module, recorder: OperationRecorder) -> None:
    """Register hooks that report the running module to the recorder."""

    def hooks(path: str) -> tuple[Any, Any]:
        def enter(module: nn.Module, args: Any, kwargs: Any) -> None:
            recorder.enter(path, (args, kwargs))

        def leave(module: nn.Module, args: Any, output: Any) -> None:
            recorder.leave(output)

        return enter, leave

    for path, module in model.named_modules():
        if not isinstance(module, torch.jit.ScriptModule):
            enter, leave = hooks(path)
            module.register_forward_pre_hook(enter, prepend=True, with_kwargs=True)
            module.register_forward_hook(leave, always_call=True)


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
            f"{name} has control flow that depends on a tensor's values{at}, so it has no single graph: {first}. "
            "Trace the submodule that has none of this (the backbone, the head), and edit it in place"
        )
    return ReadError(message, place, first, by_values=by_values)


def _place(error: BaseException, model: nn.Module) -> Place:
    """Return the place of an error in the user's code: the innermost line outside torch and `prunus.program`."""
    paths = {id(module): path for path, module in model.named_modules()}
    module, line = "", ""
    for frame, number in traceback.walk_tb(error.__traceback__):
        module = paths.get(id(frame.f_locals.get("self")), module)
        file = frame.f_code.co_filename
        if not file.startswith(FOREIGN):
            line = f"{file}:{number}"
    return Place(module, line)
