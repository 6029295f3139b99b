"""`compare`: two networks on one split, slice by slice, with their disagreement, calibration and robustness."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor, nn

from prunus.data.interface import Data, Split, SplitName
from prunus.data.multi_task import MultiTaskData
from prunus.errors import DataError, RecipeError
from prunus.gate.networks import Answer, answering
from prunus.gate.robustness import Robustness, robustness
from prunus.gate.settings import KINDS, Gate
from prunus.gate.slices import FELL, Judged, judge, slices_of, worst_first
from prunus.gate.tags import conditions_of
from prunus.interrupt import check
from prunus.modules.tree import on_device
from prunus.tasks.classification import Classification
from prunus.tasks.detection import Detection
from prunus.tasks.interface import BoundTask, Task
from prunus.tasks.multi_task import MultiTask, SubTask
from prunus.tasks.outputs import named_tensors_of
from prunus.tasks.segmentation import Segmentation
from prunus.tasks.statistics import Statistics, expected_calibration_error
from prunus.train.batches import evaluation_batches
from prunus.train.settings import Train

TASKS: dict[str, Callable[[], Task]] = {"masks": Segmentation, "labels": Classification, "boxes": Detection}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Compared:
    """The result of a comparison; pairs are (wide, narrow).

    With several tasks, the names of metrics, slices and curves are prefixed with the sub-task's.

    Attributes:
        metric: of every slice; with several tasks their metrics, separated by commas.
        slices: in the order of `worst_first`.
        disagreement: of the two networks on each image, in [0, 1].
        calibrations: expected calibration errors by sub-task ("" for a single task); None without predictions.
        curves: (recall, precision) for each class, [P, 2]; empty except for detection.
        robustness: the main metric on altered images.
    """

    metric: str
    slices: tuple[Judged, ...]
    disagreement: tuple[float, ...]
    calibrations: dict[str, tuple[float | None, float | None]]
    curves: tuple[dict[str, Tensor], dict[str, Tensor]]
    robustness: tuple[Robustness, ...] = ()

    @property
    def calibration(self) -> tuple[float | None, float | None]:
        """The expected calibration errors of the task, or of the first of several tasks."""
        return next(iter(self.calibrations.values()))

    @property
    def fallen(self) -> tuple[Judged, ...]:
        """The slices that fell significantly by more than allowed."""
        return tuple(each for each in self.slices if each.verdict == FELL)

    @property
    def passed(self) -> bool:
        """Whether no slice fell."""
        return not self.fallen

    def most_different(self, number: int) -> list[int]:
        """Return up to `number` images with the largest disagreement, in descending order; 0 is left out."""
        order = sorted(range(len(self.disagreement)), key=lambda index: -self.disagreement[index])
        return [index for index in order[:number] if self.disagreement[index] > 0]


def compare(
    wide: nn.Module | str | Path,
    narrow: nn.Module | str | Path,
    data: Data,
    *,
    task: Task | BoundTask | None = None,
    max_drop: float = 0.5,
    per: Sequence[str] = KINDS,
    split: SplitName = "test",
    settings: Gate | None = None,
    train: Train | None = None,
) -> Compared:
    """Compare two networks on a split, slice by slice, with paired intervals.

    A slice's metric is that of its task: accuracy, mean intersection over union, or mean average precision at an IoU of
    0.5. The interval of its drop comes from a bootstrap over images, in which both networks get the same images.

    Args:
        wide, narrow: the networks, as modules or ONNX files.
        data: provides the split, the classes, and the conditions of each image.
        task: of both networks; None: the default task for the data's targets.
        max_drop: percentage points by which a slice may fall.
        per: kinds of slices; see `Gate`.
        split: of the data.
        settings: all settings of the gate; they replace `max_drop` and `per`.
        train: batch size, workers and device.

    Raises:
        RecipeError: an argument is not a network, data set or split.
        DataError: the split is empty, or its tags do not fit.
        TrainingError: an output does not fit the task.
    """
    samples = _samples(data, split)
    gate = settings or Gate(max_drop=max_drop, per=per if isinstance(per, str) else tuple(per))  # type: ignore[arg-type]
    options = train or Train(batch_size=8)
    chosen = default_task(data) if task is None else task
    bound = chosen.bind(data) if isinstance(chosen, Task) else chosen
    conditions, device = conditions_of(samples, gate.tags), options.torch_device()
    threads = options.threads or 1
    with answering(wide, device, threads) as first, answering(narrow, device, threads) as second:
        statistics, disagreement = _counted(first, second, bound, samples, options)
        robust = robustness(first, second, bound, samples, options, gate) if gate.robust_images else ()
    metrics, judged = _judged(statistics, conditions, gate)
    return Compared(
        metric=metrics,
        slices=judged,
        disagreement=tuple(disagreement),
        calibrations={name: _calibration_errors(*pair) for name, pair in statistics.items()},
        curves=(_curves(statistics, 0), _curves(statistics, 1)),
        robustness=robust,
    )


def _samples(data: Data, split: SplitName) -> Split:
    if not isinstance(data, Data) or split not in get_args(SplitName):
        names = ", ".join(get_args(SplitName))
        raise RecipeError(
            f"compare takes a prunus.data.Data and one of its splits ({names}), not {data!r:.60}, {split!r}"
        )
    samples = data.split(split)
    if not len(samples):
        raise DataError(f"the {split} split is empty, so there is nothing to compare on")
    return samples


def _judged(
    statistics: Mapping[str, tuple[Statistics, Statistics]], conditions: Sequence[tuple[str, ...]], gate: Gate
) -> tuple[str, tuple[Judged, ...]]:
    """Return the names of the metrics, and the slices of all tasks, the worst first."""
    metrics, judged = list[str](), list[Judged]()
    for name, pair in statistics.items():
        one, other = (each.counts() for each in pair)
        metrics.append(f"{name}.{one.metric}".removeprefix("."))
        found = judge(one, other, slices_of(one, conditions, gate.per), gate)
        judged += [dataclasses.replace(each, name=_within(name, each.name)) for each in found]
    return ", ".join(metrics), tuple(worst_first(judged))


def _calibration_errors(wide: Statistics, narrow: Statistics) -> tuple[float | None, float | None]:
    return expected_calibration_error(wide.calibration()), expected_calibration_error(narrow.calibration())


def default_task(data: Data) -> Task:
    """Return the task for the data's targets, with default settings; for several targets, one sub-task for each."""
    if isinstance(data, MultiTaskData):
        return MultiTask(tasks={name: SubTask(task=default_task(part)) for name, part in data.by_task().items()})
    return TASKS[data.targets]()


def _within(task: str, name: str) -> str:
    """Return the name of a class or slice, prefixed with its sub-task if there is one."""
    return f"{task}: {name}" if task else name


def _curves(statistics: Mapping[str, Sequence[Statistics]], network: int) -> dict[str, Tensor]:
    return {
        _within(task, name): curve
        for task, pair in statistics.items()
        for name, curve in pair[network].curves().items()
    }


def _counted(
    wide: Answer, narrow: Answer, task: BoundTask, samples: Split, options: Train
) -> tuple[dict[str, tuple[Statistics, Statistics]], list[float]]:
    """Return both networks' statistics over the split by sub-task, and their disagreement on each image."""
    found = {name: (sub.statistics(), sub.statistics()) for name, sub in task.by_task().items()}
    disagreement = list[float]()
    for batch in evaluation_batches(samples, options):
        check()
        if batch is None:
            continue
        images, target = batch
        answers: list[Any] = [wide(images), narrow(images)]
        for name, pair in found.items():
            for statistics, answer in zip(pair, answers, strict=True):
                statistics.update(*task.part(name, answer, on_device(target, _device(answer))))
        disagreement += task.disagreement(*answers).tolist()
    return found, disagreement


def _device(answer: Any) -> torch.device:
    return next(iter(named_tensors_of(answer).values())).device
