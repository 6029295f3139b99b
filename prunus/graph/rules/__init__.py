"""The operator table: one small function says what an operator does to channels.

A rule takes a `Call` and returns the label of its output (a list for several). It may join channels,
couple them, refuse them or call their removal approximate; what it does not say is not assumed. An operator
without a rule refuses every channel that reaches it.
"""

from prunus.graph.rules import (  # noqa: F401 - each registers its rules
    attention,
    contraction,
    convolution,
    create,
    einsum,
    elementwise,
    movement,
    normalisation,
    parts,
    recurrent,
    reduction,
    sampling,
    scatter,
    views,
)
from prunus.graph.rules.table import Rule, find, rule

__all__ = ["Rule", "find", "rule"]
