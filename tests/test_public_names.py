"""The public names: what users hold on to."""

import importlib.metadata
import inspect
import subprocess
import sys

import pytest

import prunus

FIXED = {
    "Budget": (),
    "GroupLasso": ("strength",),
    "Plan": (),
    "Shrinker": ("model", "optimizer", "example"),
    "apply": ("plan", "model"),
    "carry_": ("plan", "optimizer", "model", "small"),
    "check_removal": ("model", "inputs", "fraction", "seed"),
    "load": ("folder", "build"),
    "recalibrate": ("model", "batches"),
    "save": ("folder", "small", "plan"),
    "select": ("model", "groups"),
    "trace": ("model", "inputs"),
}


def test_every_exported_name_exists_and_is_sorted():
    assert list(prunus.__all__) == sorted(prunus.__all__)
    assert all(hasattr(prunus, name) for name in prunus.__all__)
    assert prunus.__all__ and set(prunus.__all__) >= FIXED.keys()


@pytest.mark.parametrize("name", FIXED)
def test_names_and_leading_parameters_are_fixed(name):
    parameters = tuple(inspect.signature(getattr(prunus, name)).parameters)
    assert parameters[: len(FIXED[name])] == FIXED[name]


@pytest.mark.parametrize("name", prunus.__all__)
def test_public_names_explain_themselves(name):
    text = inspect.getdoc(getattr(prunus, name))
    assert text and len(text) > 30


def test_the_version_is_that_of_the_distribution():
    assert prunus.__version__ == importlib.metadata.version("prunus")


def test_every_error_is_a_prunus_error():
    from prunus import errors

    kinds = [kind for _, kind in inspect.getmembers(errors, inspect.isclass)]
    assert len(kinds) > 5 and all(issubclass(kind, prunus.PrunusError) for kind in kinds)


FIRST_USE = """
import random, numpy, torch, prunus
model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.Conv2d(8, 2, 3)).eval()
images = torch.randn(1, 3, 8, 8)

def states():
    return random.getstate(), numpy.random.get_state()[1].tolist(), torch.get_rng_state().tolist()

before = states()
groups = prunus.trace(model, images)
assert states() == before, "trace"
small = prunus.apply(prunus.select(model, groups, budget=prunus.Budget(macs=0.5, solver="exact")), model)
assert states() == before, "select, apply"
prunus.check_removal(model, images)
prunus.export_onnx(small, images, "small.onnx")
prunus.benchmark({"small": small}, (3, 8, 8), prunus.BenchmarkSettings(repeats=2))
assert states() == before, "check_removal, export_onnx, benchmark"
"""


def test_the_first_use_of_a_name_leaves_the_random_states(tmp_path):
    done = subprocess.run([sys.executable, "-c", FIRST_USE], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
