import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from prunus import records, report
from prunus.errors import RecordError


def test_the_report_is_one_file_beside_the_records(whole_run):
    path = report.write(whole_run)
    assert path == whole_run / "report.html"
    assert [file.name for file in whole_run.glob("report*")] == ["report.html"]
    page = path.read_text(encoding="utf-8")
    assert page.count("data:image/png;base64,") == 4 * (3 + 2)  # and those of the gate
    assert not re.findall(r"""(?:src|href)=["'](?!data:)""", page)
    assert path.stat().st_size < 2.5e6 + sum(file.stat().st_size for file in whole_run.glob("images/*"))


def test_the_same_records_give_the_same_file(whole_run):
    assert report.write(whole_run).read_bytes() == report.write(whole_run).read_bytes()


def test_a_folder_without_records_is_refused(tmp_path):
    with pytest.raises(RecordError, match="not the folder of a run"):
        report.write(tmp_path)


def test_a_report_that_cannot_be_written_leaves_the_old_one(make, tmp_path, monkeypatch):
    make.write_records(tmp_path, [make.run_record()])
    (tmp_path / "report.html").write_text("old")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RecordError, match=r"report\.html cannot be written \(No space left on device\)"):
        report.write(tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["records.jsonl", "report.html"]
    assert (tmp_path / "report.html").read_text() == "old"


def test_pictures_that_cannot_be_shown_say_why(make, tmp_path):
    folder = tmp_path / "run"
    make.images(folder, 1)
    (folder / "images" / "text.png").write_text("no picture")
    (tmp_path / "secret.png").write_bytes(make.png(1, 1, lambda x, y: (0, 0, 0)))
    sample = records.SampleRecord(
        index=0, image="images/gone.png", truth="images/text.png", wide=None, narrow="../secret.png"
    )
    page = report.write(make.write_records(folder, [sample])).read_text(encoding="utf-8")
    assert "images/gone.png: No such file" in page
    assert "images/text.png is not a PNG file" in page
    assert "not part of this run" in page
    assert "../secret.png lies outside the run folder" in page
    assert "data:image/png" not in page


def test_the_recipe_is_shown_as_it_was_written(make, tmp_path):
    make.write_records(tmp_path, [make.run_record()])
    assert "&#34;macs&#34;: 0.4" in report.write(tmp_path).read_text(encoding="utf-8")
    (tmp_path / "recipe.yaml").write_text("budget: {macs: 0.4}  # as it was written\n")
    assert "# as it was written" in report.write(tmp_path).read_text(encoding="utf-8")


def test_the_report_needs_no_torch():
    # The package's root offers the whole library, torch with it: an empty one stands in for it here.
    root = str(Path(report.__file__).parents[1])
    code = f"""
import sys, types
package = types.ModuleType("prunus"); package.__path__ = [{root!r}]; sys.modules["prunus"] = package
import prunus.report
sys.exit("torch" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_gate_shows_the_worst_slice_first_and_what_is_too_small(whole_run):
    page = report.write(whole_run).read_text(encoding="utf-8")
    rows = re.findall(r'data-slice="([^"]*)" data-verdict="([^"]*)"><th scope="row">([^<]*)<', page)
    assert rows[0] == ("class in condition", "fell", "pedestrian, night")
    assert ("condition", "too small", "fog") in rows and len(rows) == 4
    assert "Gate</b> failed: pedestrian, night dropped by more than 0.5" in page
    assert "They disagree on" in page and "noise" in page


def test_a_run_without_a_gate_has_no_such_section(make, tmp_path):
    page = report.write(make.write_records(tmp_path, [make.run_record(), make.evaluation_record("wide")]))
    assert "Slice by slice" not in page.read_text(encoding="utf-8")
