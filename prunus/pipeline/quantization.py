"""INT8 in a run and on the command line: quantise a file, time it, and test it against the float32 file."""

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from prunus.data.interface import Data
from prunus.deploy import BenchmarkSettings, Quantize, benchmark, quantize
from prunus.deploy.quantization import calibration_indices, quantizer
from prunus.errors import DataError, DeployError, QuantizationError
from prunus.gate.networks import answering, require_inputs
from prunus.interrupt import check
from prunus.pipeline.context import RunContext
from prunus.pipeline.recipe import NARROW
from prunus.records import QuantizationRecord
from prunus.tasks.interface import BoundTask
from prunus.train.batches import evaluation_batches
from prunus.train.settings import Train
from prunus.writing import check_replaceable, folder_aside


@dataclasses.dataclass(frozen=True, kw_only=True)
class Quantizing:
    """The data, task and settings with which INT8 is calibrated and tested."""

    data: Data
    task: BoundTask
    train: Train  # gives the size of a batch
    seed: int
    timing: BenchmarkSettings = BenchmarkSettings()  # noqa: RUF009 - frozen

    def quantized(self, source: Path, output: Path, settings: Quantize, backend: str, name: str) -> QuantizationRecord:
        """Quantise the file `source` to `output` and return the record; a refused file is removed, and so is an earlier
        file at `output`.

        Raises:
            DataError: there are no validation images to test on.
            DeployError: the backend's tool is absent or does not support the network, or the data have other shapes.
        """
        validation = self.data.validation()
        if not len(validation):
            raise DataError("INT8 is tested on the validation split, which is empty: hold images of train/ out for it")
        quantizer(backend)
        require_inputs(source, tuple(validation[0][0].shape))
        with _aside(source, output) as aside:  # the file gets its name only after the test
            file = quantize(source, aside / output.name, self._calibration(settings.samples), backend=backend)
            before, after = (self._metric(path, backend) for path in (source, file))
            times = self._milliseconds({"float32": source, "int8": file}, backend)
            sizes = {path: sum(each.stat().st_size for each in _parts(path)) for path in (source, file)}
            passed = 100 * (before - after) <= settings.max_drop
            for part in reversed(_parts(file)):  # the weights first
                place = output.parent / part.name
                if passed:
                    part.replace(place)
                else:
                    place.unlink(missing_ok=True)
        return QuantizationRecord(
            model=name,
            backend=backend,
            file=file.name,
            split="validation",
            images=len(validation),
            metric=self.task.main_metric,
            float32=before,
            int8=after,
            max_drop=settings.max_drop,
            samples=min(settings.samples, len(self.data.train())),
            seed=self.seed,
            median_ms_float32=times["float32"],
            median_ms_int8=times["int8"],
            bytes_float32=sizes[source],
            bytes_int8=sizes[file],
            passed=passed,
        )

    def _calibration(self, samples: int) -> Iterator[Tensor]:
        split = self.data.train()
        for index in calibration_indices(len(split), samples, self.seed):
            yield split[index][0][None]

    def _metric(self, path: Path, backend: str) -> float:
        metrics = self.task.metrics()
        with answering(path, torch.device("cpu"), backend=backend) as answer:
            for batch in evaluation_batches(self.data.validation(), self.train):
                check()
                if batch is not None:
                    inputs, target = batch
                    metrics.update(answer(inputs), target)
        return metrics.compute()[0][self.task.main_metric]

    def _milliseconds(self, files: dict[str, Path], backend: str) -> dict[str, float]:
        shape = tuple(self.data.validation()[0][0].shape)
        settings = dataclasses.replace(self.timing, backends=(backend,), measure_memory=False)
        return {record.model: record.median_ms for record in benchmark(files, shape, settings)}


@contextlib.contextmanager
def _aside(source: Path, output: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `output`, which must not be `source`."""
    if output.resolve() == source.resolve():
        raise DeployError(f"{output} is the network in float32 itself: name another file for the one in INT8")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        check_replaceable(output)
        with folder_aside(output) as aside:
            yield aside
    except OSError as error:
        raise DeployError(f"{output} cannot be written ({error.strerror or error}): choose another") from error


def require(record: QuantizationRecord) -> None:
    """Raise an error unless the INT8 network passed.

    Raises:
        QuantizationError: it lost more than allowed; the message says how much, and what to do.
    """
    if not record.passed:
        raise QuantizationError(
            f"{record.model} in INT8 on {record.backend} reaches {100 * record.int8:.2f} % {record.metric} on "
            f"{record.images} images of the {record.split} split, {record.drop:.2f} percentage points less than in "
            f"float32, and max_drop allows {record.max_drop:g}: its file is refused. Calibrate with more samples than "
            f"{record.samples}, allow a larger max_drop, or deploy it in float32"
        )


def quantize_run(context: RunContext) -> list[QuantizationRecord]:
    """Quantise the files of the narrow network and its family, as set in the recipe; record and return the results."""
    settings, recipe = context.recipe.deploy.quantize, context.recipe
    if settings is None:
        return []
    shared = Quantizing(
        data=recipe.data, task=context.task, train=recipe.train, seed=recipe.seed, timing=recipe.deploy.benchmark
    )
    found = []
    for source in sorted(context.folder.glob(f"{NARROW}*.onnx")):
        for backend in () if "-int8-" in source.name else settings.backends:
            context.watch.stage(f"quantising {source.stem} for {backend}")
            output = source.with_name(f"{source.stem}-int8-{backend}{quantizer(backend).int8_suffix}")
            found.append(shared.quantized(source, output, settings, backend, source.stem))
            context.recorder.write(found[-1])
    return found


def _parts(path: Path) -> list[Path]:
    """Return the path of the file, and the path of its weights if they have a separate file."""
    beside = [path.with_suffix(".bin")] if path.suffix == ".xml" else [path.with_name(f"{path.name}.data")]
    return [path, *(each for each in beside if each.is_file())]
