"""The gate: wide and narrow, slice by slice, so that nothing that matters got worse."""

from prunus.gate.comparison import Compared, compare
from prunus.gate.protect import Protect
from prunus.gate.settings import Gate

__all__ = ["Compared", "Gate", "Protect", "compare"]
