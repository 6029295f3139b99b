import io

import rich.console

from prunus import report
from prunus.report.words import GAP, MINUS


def printed(records) -> list[list[str]]:
    console = rich.console.Console(file=io.StringIO(), width=120)
    console.print(report.table(records))
    text = console.file.getvalue().replace(GAP, " ").replace(MINUS, "-")
    return [[cell.strip() for cell in line.strip("│┃").replace("┃", "│").split("│")] for line in text.splitlines()]


def test_the_table_tells_wide_narrow_and_ratio(make, tmp_path):
    lines = printed(make.complete_run(tmp_path))
    assert ["mIoU", "73.5 %", "73.1 %", "-0.4 points"] in lines
    assert ["MACs", "1.20 G", "0.457 G", "38 %"] in lines
    assert ["Parameters", "2.06 M", "0.694 M", "34 %"] in lines
    assert ["Latency, ONNX Runtime", "21.3 ms", "9.87 ms", "46 %"] in lines
    assert ["Training", "2 min 41 s", "2 min 5 s", "77 %"] in lines


def test_what_is_missing_is_said(make):
    lines = printed([make.run_record(), make.evaluation_record("narrow")])
    assert ["mIoU", "n/a", "73.1 %", "n/a"] in lines
    assert printed([])


def test_a_name_in_square_brackets_is_no_markup(make):
    lines = printed([make.run_record(name="[red]x[/nonsense]"), make.latency_record("wide", "[bold]b", 1.0)])
    assert "[red]x[/nonsense]" in lines[0][0]
    assert ["Latency, [bold]b", "1.00 ms", "n/a", "n/a"] in lines
