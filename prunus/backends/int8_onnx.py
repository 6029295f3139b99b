"""Static quantisation by onnxruntime.quantization."""

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from prunus.interrupt import check
from prunus.writing import folder_aside


def quantize_static(path: Path, output: Path, batches: Sequence[tuple[np.ndarray, ...]], folder: Path) -> None:
    """Write the ONNX file `path` to `output` with QuantizeLinear and DequantizeLinear around int8 operators.

    Args:
        path: the file in float32.
        output: the INT8 file; written to a temporary folder and renamed.
        batches: the network's inputs for calibration.
        folder: for intermediate files.
    """
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    logger = logging.getLogger()
    level, prepared = logger.level, folder / "prepared.onnx"
    logger.setLevel(logging.ERROR)  # the tool warns that pre-processing is missing, although it was done
    try:
        quant_pre_process(str(path), str(prepared), skip_symbolic_shape=True)
        with folder_aside(output) as aside:
            quantization.quantize_static(
                str(prepared),
                str(aside / output.name),
                _reader(prepared, batches),
                quant_format=quantization.QuantFormat.QDQ,
                activation_type=quantization.QuantType.QInt8,
                weight_type=quantization.QuantType.QInt8,
                per_channel=True,
            )
            (aside / output.name).replace(output)
    finally:
        logger.setLevel(level)


def _reader(path: Path, batches: Sequence[tuple[np.ndarray, ...]]) -> Any:
    from onnxruntime import InferenceSession
    from onnxruntime.quantization import CalibrationDataReader

    names = [value.name for value in InferenceSession(str(path), providers=["CPUExecutionProvider"]).get_inputs()]

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        """Passes the batches to the tool one by one."""

        def __init__(self) -> None:
            self.left: Iterator[tuple[np.ndarray, ...]] = iter(batches)

        def get_next(self) -> dict[str, np.ndarray] | None:
            """Return the next batch, arrays by input name; None at the end."""
            check()
            batch = next(self.left, None)
            return None if batch is None else dict(zip(names, batch, strict=True))

    return Reader()
