"""The gate: compares the wide and the narrow network slice by slice before the narrow network is deployed."""

from prunus.gate.comparison import Compared, compare
from prunus.gate.protect import Protect
from prunus.gate.settings import Gate

__all__ = ["Compared", "Gate", "Protect", "compare"]
