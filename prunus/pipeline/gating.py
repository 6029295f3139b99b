"""The gate of a run: wide against narrow on the test split, before the narrow network is exported."""

from torch import nn

from prunus import report
from prunus.errors import GateError
from prunus.gate import Compared, Gate, compare
from prunus.gate.networks import answering
from prunus.gate.told import told
from prunus.pipeline.context import RunContext
from prunus.pipeline.pictures import write_pictures
from prunus.pipeline.recipe import NARROW, WIDE
from prunus.records import CurveRecord, GateRecord, RobustnessRecord, SliceRecord


def pass_gate(context: RunContext, settings: Gate, wide: nn.Module, narrow: nn.Module) -> None:
    """Compare the networks, record the result, and show the images on which they disagree most.

    Raises:
        GateError: a slice dropped, and the settings stop the run; the report is written first.
    """
    context.watch.stage("comparing the wide and the narrow network, slice by slice")
    found = compare(wide, narrow, context.recipe.data, task=context.task, settings=settings, train=context.recipe.train)
    _record(context, settings, found)
    device = context.recipe.train.torch_device()
    with answering(wide, device) as first, answering(narrow, device) as second:
        for index in found.most_different(settings.gallery):
            answers = {WIDE: first, NARROW: second}
            write_pictures(context, index, answers, disagreement=found.disagreement[index])
    for model in (wide, narrow):
        model.cpu()
    if not found.passed and settings.stop:
        report.write(context.folder)
        raise GateError(
            f"{told(found, settings)} See {context.folder / 'report.html'}; set gate.stop: false to continue"
        )


def _record(context: RunContext, settings: Gate, found: Compared) -> None:
    write = context.recorder.write
    write(
        GateRecord(
            split="test",
            images=len(found.disagreement),
            metric=found.metric,
            max_drop=settings.max_drop,
            min_samples=settings.min_samples,
            confidence=settings.confidence,
            passed=found.passed,
            calibration_wide=found.calibration[0],
            calibration_narrow=found.calibration[1],
            calibrations=found.calibrations if set(found.calibrations) != {""} else {},
        )
    )
    for each in found.slices:
        write(
            SliceRecord(
                slice=each.kind,
                name=each.name,
                samples=each.samples,
                wide=each.wide,
                narrow=each.narrow,
                low=each.low,
                high=each.high,
                verdict=each.verdict,
            )
        )
    for model, curves in zip((WIDE, NARROW), found.curves, strict=True):
        for name, curve in curves.items():
            recall, precision = (tuple(column.tolist()) for column in curve.unbind(1))
            write(CurveRecord(model=model, name=name, recall=recall, precision=precision))
    for changed in found.robustness:
        write(RobustnessRecord(**vars(changed)))
