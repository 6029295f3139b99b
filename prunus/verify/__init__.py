"""VERIFY: do two networks compute the same? Outputs compared, edits measured, the law of removal."""

from prunus.verify.removal_law import check_removal

__all__ = ["check_removal"]
