"""Verify that two networks compute the same: the difference of outputs, measured edits, the law of removal."""

from prunus.verify.difference import Extremes, difference, largest_difference, outputs, relatives
from prunus.verify.edits import apply_measured, record_of
from prunus.verify.removal_law import check_removal
from prunus.verify.rounding import Change, change, change_of_outputs, outputs_in_both

__all__ = [
    "Change",
    "Extremes",
    "apply_measured",
    "change",
    "change_of_outputs",
    "check_removal",
    "difference",
    "largest_difference",
    "outputs",
    "outputs_in_both",
    "record_of",
    "relatives",
]
