"""A run's folder names its narrow network on the command line."""

import json
import re
import shutil

import pytest
import torch

from prunus import cli
from prunus.errors import RecipeError
from prunus.named import named


def test_the_folder_of_a_run_is_its_narrow_network(done):
    network = named(str(done.folder))
    removed = json.loads((done.folder / "narrow" / "plan.json").read_text())["edits"]
    assert removed and network.model(torch.zeros(network.input_shape)).shape[2:] == network.input_shape[2:]
    assert network.model.encoder[0].out_channels < 16


def test_trace_export_and_bench_take_it(done, tmp_path, capsys):
    path = str(tmp_path / "again.onnx")
    assert cli.main(["trace", str(done.folder)]) == 0
    assert "decoder" in capsys.readouterr().out
    assert cli.main(["export", str(done.folder), "--output", path]) == 0
    assert "equal to PyTorch" in capsys.readouterr().out
    assert cli.main(["bench", f"narrow={done.folder}", f"again={path}", "--repeats", "2"]) == 0
    shown = capsys.readouterr().out
    assert "again" in shown and "1 x 3 x 16 x 32" in shown  # the run's own shape


def test_other_folders_and_settings_are_refused(done, tmp_path):
    with pytest.raises(RecipeError, match="not the folder of a finished run"):
        named(str(tmp_path))
    with pytest.raises(RecipeError, match="no --set"):
        named(str(done.folder), ["num_classes=3"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (None, "no record of the run itself"),
        ({"input_shape": [1, 3, 2**40, 2**40]}, "no example of the shape"),
        ({"input_shape": []}, "input|shape"),
        ({"input_shape": [1, -3, 16, 32]}, "no example of the shape"),
        ({"class_names": []}, "another network|cannot be built"),
        ({"class_names": ["a"] * 200_000}, "another network|classes"),
        ({"class_names": ["a", 3]}, "class_names"),
    ],
)
def test_records_that_do_not_fit_are_refused(done, tmp_path, change, message, capsys):
    shutil.copytree(done.folder, tmp_path / "run")
    path = tmp_path / "run" / "records.jsonl"
    first, *rest = path.read_text().splitlines()
    changed = [] if change is None else [json.dumps({**json.loads(first), **change})]
    path.write_text("\n".join([*changed, *rest]) + "\n")
    assert cli.main(["trace", str(tmp_path / "run"), "--trust"]) == 1
    error = capsys.readouterr().err
    assert re.search(message, error) and "Traceback" not in error
