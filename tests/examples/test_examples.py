"""The examples run as they stand."""

import re
from pathlib import Path

import prunus

EXAMPLES = Path(__file__).parents[2] / "examples"
ADDED = re.compile(r"# \+( |$)")


def executed(source, name):
    names = {"__name__": "__main__"}
    exec(compile(source, name, "exec"), names)
    return names


def test_two_lines_added_to_a_loop_shrink_it_to_the_budget(capsys):
    names = executed((EXAMPLES / "own_loop.py").read_text(), "own_loop.py")
    model, shrinker = names["model"], names["shrinker"]
    sizes = [int(size.replace(",", "")) for size in re.findall(r"([\d,]+) parameters", capsys.readouterr().out)]
    assert len(sizes) == 10 and sizes == sorted(sizes, reverse=True) and sizes[-1] < sizes[0]
    assert sizes[-1] == sum(parameter.numel() for parameter in model.parameters())
    bound = shrinker.pressure.goal.bounds["macs"]
    assert 0.9 * bound < prunus.trace(model, names["images"][:1]).macs() <= bound
    assert names["accuracy"] >= 0.95


def test_they_are_three_with_the_import_and_without_them_the_loop_is_a_plain_one(capsys):
    lines = (EXAMPLES / "own_loop.py").read_text().splitlines()
    added = [line for line in lines if ADDED.search(line)]
    assert 0 < len(added) <= 3
    plain = "\n".join(line for line in lines if line not in added)
    assert "prunus" not in plain.partition('"""\n\n')[2]
    executed(plain, "plain_loop.py")
    sizes = re.findall(r"([\d,]+) parameters", capsys.readouterr().out)
    assert len(sizes) == 10 and len(set(sizes)) == 1
