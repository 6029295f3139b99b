import dataclasses
import inspect
import typing

import pytest

import prunus
from prunus.pipeline import Contract, Decompose, Expand, Factorize, Linearize


@pytest.mark.parametrize("settings", [Decompose, Factorize, Expand, Linearize, Contract])
def test_the_settings_of_an_edit_are_the_arguments_of_its_function(settings):
    function = getattr(prunus, settings.__name__.lower())
    arguments = list(inspect.signature(function).parameters.values())[1:]
    assert [(field.name, field.default) for field in dataclasses.fields(settings)] == [
        (argument.name, argument.default) for argument in arguments
    ]
    hints, expected = typing.get_type_hints(settings), typing.get_type_hints(function)
    assert all(hints[argument.name] == expected[argument.name] for argument in arguments)
    assert settings.planner is function
