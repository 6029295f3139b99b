"""Run the code of a network without a trace in what surrounds it."""

import contextlib
import io
import logging
import random
import warnings
from collections.abc import Iterator
from contextvars import ContextVar

import numpy as np
import torch
from torch import nn

from prunus.modules.code import surroundings_kept

_RUNNING: ContextVar[frozenset[int]] = ContextVar("running", default=frozenset())  # ids of models


@contextlib.contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Run code that prints nothing and leaves no trace in random numbers and in the user's variables."""
    if id(model) in _RUNNING.get():
        yield
        return
    token = _RUNNING.set(_RUNNING.get() | {id(model)})
    level, nowhere = logging.root.manager.disable, io.StringIO()
    fast, states = torch.backends.mha.get_fastpath_enabled(), (random.getstate(), np.random.get_state())
    torch.backends.mha.set_fastpath_enabled(False)  # a path of its own, for evaluation without gradients
    logging.disable(logging.ERROR)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(nowhere),
            contextlib.redirect_stderr(nowhere),
            torch.random.fork_rng(devices=[]),
            torch.compiler.set_stance("force_eager"),
            surroundings_kept(model),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
        torch.backends.mha.set_fastpath_enabled(fast)
        random.setstate(states[0])
        _RUNNING.reset(token)
        np.random.set_state(states[1])
