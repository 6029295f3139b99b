"""The rules: one small function per operator describes its effect on channels.

A rule takes a `Call` and returns the label of its output (a list for several). It may join channels, couple them,
refuse them or declare their removal approximate; nothing else is assumed. An operator without a rule refuses every
channel that reaches it.
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
