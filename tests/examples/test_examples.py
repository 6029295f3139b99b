"""The examples run as they stand."""

import re
from pathlib import Path

EXAMPLES = Path(__file__).parents[2] / "examples"
ADDED = re.compile(r"# \+( |$)")


def executed(source, name):
    names = {"__name__": "__main__"}
    exec(compile(source, name, "exec"), names)
    return names


def test_ten_lines_added_to_a_loop_shrink_it(capsys):
    source = (EXAMPLES / "own_loop.py").read_text()
    model = executed(source, "own_loop.py")["model"]
    sizes = [int(size.replace(",", "")) for size in re.findall(r"([\d,]+) parameters", capsys.readouterr().out)]
    assert len(sizes) == 10 and sizes == sorted(sizes, reverse=True)
    assert sizes[-1] < 0.1 * sizes[0]
    assert sizes[-1] == sum(parameter.numel() for parameter in model.parameters())


def test_they_are_ten_at_most_and_without_them_the_loop_is_a_plain_one(capsys):
    lines = (EXAMPLES / "own_loop.py").read_text().splitlines()
    added = [line for line in lines if ADDED.search(line)]
    assert 0 < len(added) <= 10
    plain = "\n".join(line for line in lines if line not in added)
    assert "prunus" not in plain.partition('"""\n\n')[2]
    executed(plain, "plain_loop.py")
    sizes = re.findall(r"([\d,]+) parameters", capsys.readouterr().out)
    assert len(sizes) == 10 and len(set(sizes)) == 1
