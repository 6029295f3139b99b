"""The public names: what users hold on to."""

import importlib.metadata
import inspect

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
