"""Write a network as an ONNX file with torch's current exporter (`torch.export`, then ONNX)."""

import inspect
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import nn

from prunus.backends.signature import Inputs, Listed, as_tuple, is_plain, named_outputs
from prunus.decoding import MIB, read_bytes
from prunus.errors import DeployError
from prunus.interrupt import check
from prunus.modules.defaults import users_device, whatever_device
from prunus.modules.given import unusable
from prunus.modules.modes import evaluating
from prunus.modules.stand_in import fed, stand_in
from prunus.modules.undisturbed import undisturbed
from prunus.writing import check_replaceable, folder_aside

MOST_BYTES = 2048 * MIB  # ONNX's limit for one file
_COLOURS = re.compile(r"\x1b?\[\d+m")


@whatever_device
def export_onnx(
    model: nn.Module,
    inputs: Inputs,
    path: str | Path,
    *,
    dynamic_batch: bool = True,
    input_names: Sequence[str] | None = None,
    output_names: Sequence[str] | None = None,
    opset: int | None = None,
) -> Path:
    """Write `model`, in evaluation mode, as an ONNX file that onnx.checker accepts, and return its path.

    One file holds graph and weights; above 2 GB, ONNX's limit, the weights are in `<name>.data` beside it. The file is
    written to a temporary folder and renamed, so an existing file survives a failure. The model is not changed.

    Args:
        model: any module whose forward takes and returns tensors (also in dictionaries, tuples and lists).
        inputs: an example of forward's inputs, a tensor or a tuple of tensors, each [N, ...].
        path: the file to write; its folder is created.
        dynamic_batch: leave N open, so that the file runs at any batch size; N must then be the same for all inputs.
        input_names: by default "input", or the names of forward's parameters if there are several.
        output_names: by default "output", the keys of the dictionary, or "output_0", "output_1", ...
        opset: the ONNX operator set; torch's default if None.

    Raises:
        DeployError: the network cannot be exported (with reason and remedy), or the file cannot be written.
    """
    path = Path(path)
    check()
    check_replaceable(path)
    if (reason := unusable(model)) is not None:
        raise DeployError(reason)
    tensors = _at_least_two(as_tuple(inputs)) if dynamic_batch else as_tuple(inputs)
    copy = stand_in(model, {}, (), with_values=True)  # the module's code may cache results
    with undisturbed(model), evaluating(copy):
        returned = _run(copy, fed(tensors, with_values=True))
        outputs = named_outputs(returned)
        names = list(output_names or outputs)
        taken = list(input_names or _input_names(copy, len(tensors)))
        _check_names(taken, names, len(tensors), len(outputs))
        exported = copy if is_plain(returned) else Listed(copy).eval()
        program = _export(exported, tensors, dynamic_batch, taken, names, opset)
        if dynamic_batch:
            _check_batch(program, list(outputs.values()), tensors[0].shape[0])
        _write(program, path)
    return path


def input_shape(path: Path) -> tuple[int, ...] | None:
    """Return the shape of the first input of an ONNX file without the batch dimension; None if it is dynamic.

    Raises:
        DeployError: the file is missing or is no ONNX file.
    """
    try:
        inputs = onnx.load_model_from_string(read_bytes(path, MOST_BYTES)).graph.input
    except FileNotFoundError as error:
        raise DeployError(f"{path} does not exist: name an ONNX file, as a run or `prunus export` writes it") from error
    except Exception as error:  # errors of protobuf and the system, or another kind of file
        raise DeployError(f"{path} cannot be read as an ONNX file: {error}") from error
    sizes = [dim.dim_value for dim in inputs[0].type.tensor_type.shape.dim][1:] if inputs else []
    return tuple(sizes) if sizes and all(sizes) else None


def _at_least_two(tensors: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    """Return the example with a batch of two or more, since torch.export treats a size of 1 as a constant."""
    sizes = [tensor.shape[0] if tensor.ndim else None for tensor in tensors]
    if len(set(sizes)) != 1 or sizes[0] in (None, 0):
        raise DeployError(
            f"the inputs' first dimensions are {sizes}, so they are not one batch; give inputs [N, ...] of one N >= 1, "
            "or export with dynamic_batch=False"
        )
    return tensors if sizes[0] != 1 else tuple(torch.cat((tensor, tensor)) for tensor in tensors)


def _run(model: nn.Module, tensors: tuple[torch.Tensor, ...]) -> Any:
    """Return the output; refuse a network that does not run in PyTorch before the exporter is called."""
    try:
        with torch.no_grad(), users_device():
            return model(*tensors)
    except (RuntimeError, TypeError, ValueError) as error:
        shapes = ", ".join(str(list(tensor.shape)) for tensor in tensors)
        raise DeployError(
            f"{type(model).__name__} does not run on inputs {shapes}, so it cannot be exported: {_first_lines(error)}. "
            "Give an example that its forward takes, on its device"
        ) from error


def _input_names(model: nn.Module, number: int) -> list[str]:
    if number == 1:
        return ["input"]
    parameters = inspect.signature(model.forward).parameters.values()
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    names = [parameter.name for parameter in parameters if parameter.kind in kinds]
    return names[:number] if len(names) >= number else [f"input_{index}" for index in range(number)]


def _check_names(inputs: list[str], outputs: list[str], num_inputs: int, num_outputs: int) -> None:
    if len(inputs) != num_inputs or len(outputs) != num_outputs:
        raise DeployError(
            f"the network has {num_inputs} inputs and {num_outputs} outputs, but the names given are {inputs} and "
            f"{outputs}: give one name for each"
        )
    names = inputs + outputs
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DeployError(
            f"several inputs or outputs would be called {', '.join(twice)}: an ONNX file needs distinct names; give "
            "input_names and output_names"
        )


def _export(
    model: nn.Module,
    tensors: tuple[torch.Tensor, ...],
    dynamic_batch: bool,
    input_names: list[str],
    output_names: list[str],
    opset: int | None,
) -> torch.onnx.ONNXProgram:
    """Export `model` with torch's exporter; its errors are raised as `DeployError`."""
    try:
        program = torch.onnx.export(
            model,
            tensors,
            dynamo=True,
            dynamic_shapes=_dynamic_shapes(model, len(tensors)) if dynamic_batch else None,
            input_names=input_names,
            output_names=output_names,
            opset_version=opset,
            verbose=False,
        )
    except Exception as error:  # the exporter raises errors of torch.export, dynamo, sympy and ONNX Script
        raise DeployError(_explain(model, error, dynamic_batch)) from error
    if program is None:
        raise DeployError("torch.onnx.export returned nothing: update torch")
    return program


def _dynamic_shapes(model: nn.Module, number: int) -> tuple[Any, ...]:
    """Return a dynamic batch per input, structured as forward's parameters: the inputs in `*inputs` form one tuple."""
    batch = {0: torch.export.Dim("batch")}
    kinds = [parameter.kind for parameter in inspect.signature(model.forward).parameters.values()]
    if inspect.Parameter.VAR_POSITIONAL not in kinds:
        return (batch,) * number
    named = min(number, kinds.index(inspect.Parameter.VAR_POSITIONAL))
    return (*(batch,) * named, (batch,) * (number - named))


def _explain(model: nn.Module, error: BaseException, dynamic_batch: bool) -> str:
    """Explain the exporter's error: the innermost cause and the remedy for that kind of error."""
    cause = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    name = type(model.model if isinstance(model, Listed) else model).__name__
    text = f"{name} cannot be exported to ONNX: {_first_lines(cause)}. "
    if "No ONNX function" in str(cause):
        return text + "Replace that operator by ones that ONNX has, or remove it from the deployed network"
    if dynamic_batch and ("batch" in str(error) or "Constraint" in str(error)):
        return text + (
            "Its forward fixes the batch size: take sizes from x.shape and leave the batch to -1, or export with "
            "dynamic_batch=False"
        )
    return text + (
        "Its forward must not branch on values or make shapes from them; torch.export.export(model, inputs) alone "
        "shows the place"
    )


def _check_batch(program: torch.onnx.ONNXProgram, outputs: list[torch.Tensor], batch: int) -> None:
    """Refuse a file whose outputs have the example's batch size hard-coded: it would be wrong at any other."""
    for value, tensor in zip(program.model.graph.outputs, outputs, strict=True):
        shape = value.shape
        frozen = shape is not None and len(shape) > 0 and isinstance(shape[0], int)
        if frozen and tensor.ndim and tensor.shape[0] == batch:
            raise DeployError(
                f"output {value.name!r} keeps the example's batch size {batch}: the network's forward writes it into a "
                "shape. Take it from x.shape[0] there, or export with dynamic_batch=False"
            )


def _write(program: torch.onnx.ONNXProgram, path: Path) -> None:
    """Write to a folder beside `path`, check, and rename, so that `path` is the old file or the complete new one."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with folder_aside(path) as folder:
            # Saved under its final name, since the graph refers to the weights' file by name.
            program.save(folder / path.name, external_data=False)
            publish(folder, path)
    except OSError as error:
        raise DeployError(
            f"{path} cannot be written: {error.strerror or error}. Give a path in a folder that is writable and has "
            "room"
        ) from error
    except onnx.checker.ValidationError as error:
        raise DeployError(
            f"torch's exporter wrote a file for {path} that onnx.checker refuses: {_first_lines(error)}. Try another "
            "opset, or another version of torch and onnxscript"
        ) from error


def publish(folder: Path, path: Path) -> None:
    """Check the file `folder / path.name`, flush it to the disk and move it to `path`, its weights first."""
    onnx.checker.check_model(str(folder / path.name))
    for written in sorted(folder.iterdir(), key=lambda file: file.name == path.name):
        with written.open("rb") as file:
            os.fsync(file.fileno())
        written.replace(path.parent / written.name)


def _first_lines(error: BaseException) -> str:
    """Return the beginning of an exporter's message, which may be pages long, without its colour codes."""
    lines = [line.strip() for line in _COLOURS.sub("", str(error)).splitlines()]
    return " ".join([line for line in lines if line][:3])[:500].rstrip(".") or type(error).__name__
