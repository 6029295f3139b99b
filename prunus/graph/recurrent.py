"""Recurrent layers on shapes alone: torch would take every step of the sequence apart."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

OPERATORS = {
    "lstm": torch.ops.aten.lstm.input,
    "gru": torch.ops.aten.gru.input,
    "rnn_tanh": torch.ops.aten.rnn_tanh.input,
    "rnn_relu": torch.ops.aten.rnn_relu.input,
}


def operator(function: Any, args: Sequence[Any]) -> Any:
    """Return the recurrent operator that `function` calls with `args`; None for others, and for packed sequences."""
    found = function if function in OPERATORS.values() else OPERATORS.get(getattr(function, "__name__", ""))
    return found if found is not None and len(args) == 9 and isinstance(args[2], list | tuple) else None


def outputs(args: Sequence[Any]) -> tuple[Tensor, ...]:
    """Return empty outputs of a recurrent operator: the states of all steps, [..., D * H], and the last ones.

    D is 2 where the sequence is read both ways. `args` are the operator's: the sequence, the first states (two of
    an LSTM), the weights, and its settings.
    """
    sequence, first, bidirectional = args[0], args[1], args[7]
    states = list(first) if isinstance(first, list | tuple) else [first]
    width = states[0].shape[-1] * (2 if bidirectional else 1)
    return sequence.new_empty((*sequence.shape[:-1], width)), *(state.new_empty(state.shape) for state in states)
