"""Run the code of a network without side effects outside it."""

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
    """Suppress output and warnings within the context; restore random states and the user's variables at the end."""
    if id(model) in _RUNNING.get():
        yield
        return
    token = _RUNNING.set(_RUNNING.get() | {id(model)})
    level, nowhere = logging.root.manager.disable, io.StringIO()
    fast, states = torch.backends.mha.get_fastpath_enabled(), (random.getstate(), np.random.get_state())
    torch.backends.mha.set_fastpath_enabled(False)  # it calls other operators in evaluation without gradients
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
