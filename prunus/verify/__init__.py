"""VERIFY: whether two networks compute the same: the difference of outputs, measured edits, the law of removal."""

from prunus.verify.difference import (
    Extremes,
    difference,
    difference_in_float64,
    is_rounding,
    largest_difference,
    outputs,
)
from prunus.verify.edits import apply_measured, record_of
from prunus.verify.removal_law import check_removal

__all__ = [
    "Extremes",
    "apply_measured",
    "check_removal",
    "difference",
    "difference_in_float64",
    "is_rounding",
    "largest_difference",
    "outputs",
    "record_of",
]
