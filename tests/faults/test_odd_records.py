"""A report is never lost: what is odd in the records costs its own line, and what is odd in names no terminal sees."""

import dataclasses
import io
import json
import os
import shutil
import sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from prunus import cli, records, report
from prunus.errors import RecordError
from prunus.records import FILE_NAME, NoteRecord, Recorder, RunRecord, WidthsRecord
from prunus.terminal import Terminal, visible

NUMBERS = [-1, 0, 10**30, 1e300, float("nan"), float("inf"), True]
ODD = [*NUMBERS, "", "x", "\ud800", "\x1b]0;x\x07", None, [], {}, [1], {"a": "b"}]
NOTE = b'{"kind": "note", "text": "%s"}\n'
FIELDS = {
    str: "narrow",
    int: 3,
    float: 0.5,
    bool: True,
    "dict[str, float]": {"miou": 0.5},
    "dict[str, float | None]": {"road": 0.5},
    "dict[str, typing.Any]": {"a": 1},
    "dict[str, str]": {"a": "b"},
    "dict[str, int]": {"a": 3},
    "dict[str, tuple[float | None, float | None]]": {"a": (0.5, None)},
    "tuple[str, ...]": ("a",),
    "tuple[int, ...]": (3,),
    "tuple[float, ...]": (0.5,),
    "tuple[tuple[int, int, int], ...]": ((1, 2, 3),),
    "float | None": 0.5,
    "str | None": "a.png",
}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Return the lines of a run's records."""
    folder = tmp_path_factory.mktemp("run")
    recorder = Recorder(folder)
    for record in all_records():
        recorder.write(record)
    return (folder / FILE_NAME).read_bytes().splitlines(keepends=True)


def all_records():
    """Yield one record of each kind."""
    for kind in records.TYPES.values():
        hints = {field.name: field.type for field in dataclasses.fields(kind)}
        yield kind(**{name: FIELDS[hint if hint in FIELDS else str(hint)] for name, hint in hints.items()})


@pytest.mark.parametrize("cases", [12, pytest.param(2000, marks=[pytest.mark.slow, pytest.mark.timeout(3500)])])
def test_whatever_is_in_the_records_there_is_a_page(written, tmp_path, cases):
    def check(data):
        lines = [bytearray(line) for line in written]
        number = data.draw(st.integers(0, len(lines) - 1))
        if data.draw(st.booleans()):
            fields = json.loads(lines[number])
            key = data.draw(st.sampled_from(sorted(fields)))
            fields[key] = data.draw(st.sampled_from(ODD) | st.just([fields[key]]) | st.just({"a": fields[key]}))
            lines[number] = bytearray(json.dumps(fields).encode() + b"\n")
        else:
            for _ in range(data.draw(st.integers(1, 4))):
                lines[number][data.draw(st.integers(0, len(lines[number]) - 1))] = data.draw(st.integers(0, 255))
        (tmp_path / FILE_NAME).write_bytes(b"".join(lines))
        assert report.write(tmp_path).stat().st_size > 10**6
        Terminal(file=io.StringIO()).print(report.table(records.readable(tmp_path)[0]))

    silent = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
    settings(max_examples=cases, deadline=None, database=None, suppress_health_check=silent)(given(st.data())(check))()


@pytest.mark.parametrize(
    "odd",
    [
        b'{"kind": "note", "text": "\xff\xfe"}\n',
        b'{"kind": "note"}\n',
        b"\n",
        b'{"kind": "widths", "layers": ["a", "b"], "initial": [1], "learned": [1, 2]}\n',
        b'{"kind": "evaluation", "model": "wide", "split": "test", "images": 4, "metrics": {"miou": "high"}, '
        b'"per_class": {}, "macs": 1, "params": 1, "training_seconds": 1.0}\n',
    ],
    ids=["no UTF-8", "a field less", "an empty line", "other lengths", "a metric that is text"],
)
def test_an_odd_line_is_named_in_the_notes_and_the_others_are_shown(tmp_path, odd):
    (tmp_path / FILE_NAME).write_bytes(
        b'{"kind": "note", "text": "before"}\n' + odd + b'{"kind": "note", "text": "after"}\n'
    )
    page = report.write(tmp_path).read_text(encoding="utf-8")
    assert "before" in page and "after" in page and "line 2 is not a record" in page
    with pytest.raises(RecordError, match="line 2"):
        records.read(tmp_path)


def test_a_kind_of_record_that_no_page_was_thought_of_for_is_left_out(tmp_path, monkeypatch):
    Recorder(tmp_path).write(NoteRecord(text="shown"))
    Recorder(tmp_path).write(WidthsRecord(layers=("a",), initial=(2,), learned=(1,)))
    monkeypatch.setattr("prunus.report.plots.widths", lambda record: 1 / 0)
    page = report.write(tmp_path).read_text(encoding="utf-8")
    assert "shown" in page and "1 records of the kind widths cannot be shown: ZeroDivisionError" in page


def test_names_that_are_not_utf8_are_shown_escaped(tmp_path):
    folder = tmp_path / os.fsdecode(b"run-\xff")
    folder.mkdir()
    Recorder(folder).write(NoteRecord(text=f"read {folder}"))
    assert "run-\\udcff" in report.write(folder).read_text(encoding="utf-8")
    assert cli.main(["report", str(folder)]) == 0


@pytest.mark.parametrize(("encoding", "columns"), [("ascii", "80"), ("latin-1", "80"), ("utf-8", "0"), ("utf-8", "1")])
def test_a_table_is_printed_on_any_terminal(tmp_path, written, monkeypatch, encoding, columns):
    (tmp_path / FILE_NAME).write_bytes(b"".join(written))
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding, write_through=True)
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setenv("COLUMNS", columns)
    assert cli.main(["report", str(tmp_path)]) == 0
    assert b"MACs" in stream.buffer.getvalue()


def test_what_a_terminal_would_obey_is_escaped(tmp_path, capsys):
    name = "\x1b]0;title\x07\x1b[2J\u202egnp.exe"
    folder = tmp_path / "\x1b[31mred"
    assert cli.main(["report", str(folder)]) == 1
    assert "\x1b" not in capsys.readouterr().err
    run = next(record for record in all_records() if isinstance(record, RunRecord))
    Recorder(tmp_path).write(dataclasses.replace(run, name=name))
    assert cli.main(["report", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "\x1b" not in printed and "\u202e" not in printed and "title" in printed
    assert visible("a\tb\nc – ü 漢") == "a\tb\nc – ü 漢"


def test_a_flipped_byte_does_not_keep_a_run_from_going_on(tmp_path, written):
    (tmp_path / FILE_NAME).write_bytes(b"\xff" + b"".join(written)[1:])
    recorder = Recorder(tmp_path)
    assert recorder.count() == len(written)
    recorder.truncate(len(written) - 1)
    recorder.write(NoteRecord(text="on"))
    assert records.readable(tmp_path)[0][-1] == NoteRecord(text="on")
    shutil.rmtree(tmp_path)
