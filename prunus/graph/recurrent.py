"""Recurrent layers on the meta device: torch would take every step of the sequence apart."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

OPERATORS = frozenset(
    {
        torch.ops.aten.lstm.input,
        torch.ops.aten.gru.input,
        torch.ops.aten.rnn_tanh.input,
        torch.ops.aten.rnn_relu.input,
    }
)


def outputs(args: Sequence[Any]) -> tuple[Tensor, ...]:
    """Return empty outputs of a recurrent operator: the states of all steps, [..., D * H], and the last ones.

    D is 2 where the sequence is read both ways. `args` are the operator's: the sequence, the first states (two of
    an LSTM), the weights, and its settings.
    """
    sequence, first, bidirectional = args[0], args[1], args[7]
    states = list(first) if isinstance(first, list | tuple) else [first]
    width = states[0].shape[-1] * (2 if bidirectional else 1)
    return sequence.new_empty((*sequence.shape[:-1], width)), *(state.new_empty(state.shape) for state in states)
