"""Recurrent layers: the gates of a hidden state are stacked along the rows of their weights."""

import functools
import math

import torch

from prunus.graph.call import Call
from prunus.graph.findings import Kind
from prunus.graph.labels import Axis, Label, Labels
from prunus.graph.rules.table import rule

GATES = {"lstm": 4, "gru": 3}  # rows of a weight per hidden channel; 1 without gates


@rule("lstm", "gru", "rnn_tanh", "rnn_relu", "quantized_lstm")
def recurrent(call: Call) -> Labels:
    """Stacked layers, each in one or two directions, with one hidden size, which torch stores once."""
    layers = call.get("num_layers", 0) * (1 + call.get("bidirectional", False))
    each = 4 if call.get("has_biases") else 2
    if "batch_sizes" in call.arguments or not layers or len(call["params"]) != layers * each:
        call.freeze_all("a recurrent layer of packed sequences, or with projections, keeps its sizes")
        return call.results()
    weights = [call["params"][first : first + each] for first in range(0, layers * each, each)]
    directions, value = layers // call["num_layers"], call.input.behind(-1)
    hidden = _hidden(call, weights)
    for number, layer in enumerate(weights):
        if number and number % directions == 0:
            value = hidden and hidden.mapped(lambda values: values.repeat(directions))
        _read(call, value, layer, hidden, math.prod(call.input.shape[:-1]))
    states = hidden and hidden.mapped(lambda values: values.repeat(directions))
    ends = [{len(shape) - 1: hidden} if hidden is not None else {} for shape in call.shapes[1:]]
    return call.results({call.input.last: states} if states is not None else {}, *ends)


@rule("lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell")
def cell(call: Call) -> Labels:
    """One step of a recurrent layer."""
    names = ("w_ih", "w_hh", "b_ih", "b_hh")
    weights = [call[name] for name in names if call.get(name) is not None]
    hidden = _hidden(call, [weights])
    _read(call, call.input.behind(-1), weights, hidden, math.prod(call.input.shape[:-1]))
    axes = {call.input.last: hidden} if hidden is not None else {}
    return call.results(*(axes for _ in call.shapes))


def _hidden(call: Call, layers: list[list[Label]]) -> Axis | None:
    """Return the hidden channels: zero where all rows of their gates and the initial state are.

    A state of zeros then moves towards tanh(0) = 0, whatever the gates let through.
    """
    gates = GATES.get(call.name.partition("::")[2].removesuffix("_cell"), 1)
    rows = [weight.axes.get(0) for layer in layers for weight in layer]
    for axis in rows[1:]:
        call.join(rows[0], axis)
    if rows[0] is None:
        return None
    size = rows[0].ids.numel() // gates
    call.couple(rows[0].ids.reshape(gates, size))
    ids = rows[0].ids[:size]
    found = [Axis(ids, axis.source.reshape(gates, size).amax(0)) for axis in rows if axis is not None]
    for axis in rows:
        call.produce(axis)
    states = call["hx"] if isinstance(call["hx"], list | tuple) else [call["hx"]]
    for state in states:
        begun = call.as_wide(state, state.last, found[0])
        call.join(found[0], begun)
        call.produce(begun)
        found += [] if begun is None else [begun]
    for axis in (axis for label in (call.input, *states) for axis in label.before(1).values()):
        call.freeze(axis, "channels lie along the steps or the samples of a recurrent layer")
    return Axis(ids, functools.reduce(torch.maximum, (axis.source for axis in found)))


def _read(call: Call, value: Axis | None, weights: list[Label], hidden: Axis | None, steps: int) -> None:
    """Contract a layer's first weight with its input, and its second with the hidden state."""
    for weight, read in zip(weights, (value, hidden), strict=False):
        call.consume(weight.axes.get(1))
        call.contract(read, weight.axes.get(1))
        call.cost(steps, *(weight.axes.get(dim, size) for dim, size in enumerate(weight.shape)))
    if hidden is not None:
        call.findings.mark(Kind.CONTRACTED, hidden)
