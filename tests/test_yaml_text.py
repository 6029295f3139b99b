"""YAML from outside: the numbers of YAML 1.2, and what is written is read as it was."""

import math

import pytest

from prunus.yaml_text import from_yaml, to_yaml


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", 0), ("-17", -17), ("1_000", 1000), ("0x10", 16), ("0b11", 3), ("1.", 1.0), (".5", 0.5), ("+.5", 0.5),
        ("1e-4", 1e-4), ("1.0e-05", 1e-5), (".5e3", 500.0), ("-.inf", -math.inf),
        ("010", "010"), ("08", "08"), ("1:30", "1:30"), ("1:30.5", "1:30.5"), ("0o10", "0o10"), ("0x", "0x"),
        ("2001-01-01", "2001-01-01"), ("1.2.3", "1.2.3"), (".", "."), ("1e", "1e"), ("\uff11", "\uff11"),
    ],
)  # fmt: skip
def test_a_number_is_one_in_yaml_1_2(text, value):
    assert from_yaml(text) == value and type(from_yaml(text)) is type(value)


@pytest.mark.parametrize(
    "value", ["1e3", ".5e3", "010", "1:30", "yes", "null", "0x1F", "", " a ", "- a", 1e-5, 3, True]
)
def test_what_is_written_is_read(value):
    assert from_yaml(to_yaml({"key": value})) == {"key": value}
