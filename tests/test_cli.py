"""The command line as a user and a script see it: exit codes, messages, signals."""

import json
import math
import os
import signal

import numpy as np
import pytest
import tiny
from PIL import Image
from torch import nn

from prunus import cli

SHAPE = ["trace", "tiny:TinySegmenter", "--shape", "1,3,big"]


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Stand in a folder that holds the tiny recipe."""
    tiny.write_recipe(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def prunus(capsys, *arguments):
    """Run the command line in this process; return its exit code, output and errors."""
    code = cli.main(arguments)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


# ---------------------------------------------------------------- help, usage


def test_the_help_teaches(capsys):
    with pytest.raises(SystemExit) as exit_:
        cli.main(["--help"])
    text = capsys.readouterr().out
    assert exit_.value.code == 0
    for name in ("run", "trace", "export", "bench", "report", "recipes"):
        assert f"\n    {name} " in text
    assert "prunus run street_erfnet train.epochs=3" in text
    assert "exit codes" in text


@pytest.mark.parametrize("name", ["run", "trace", "export", "bench", "report", "recipes"])
def test_every_command_has_help_with_an_example(capsys, name):
    with pytest.raises(SystemExit) as exit_:
        cli.main([name, "--help"])
    assert exit_.value.code == 0
    assert f"\n  prunus {name}" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [[], ["grow"], ["run"], ["bench", "a.onnx", "--threads", "many"], SHAPE])
def test_a_wrong_command_line_exits_with_2(capsys, arguments):
    with pytest.raises(SystemExit) as exit_:
        cli.main(arguments)
    assert exit_.value.code == 2
    assert "usage: prunus" in capsys.readouterr().err


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["train.epoch=3"], ["`train.epoch`", "epochs"]),
        (["train.epochs=many"], ["`train.epochs`"]),
        (["epochs=3"], ["`epochs` is not a known key; did you mean `train.epochs`?"]),
        (["data.class_path=prunus.data.CamVidData", "data.root=nowhere"], ["nowhere", "train.txt"]),
        (["data.class_path=prunus.data.CamVidData"], ["root"]),
        (["shrink.budget.macs=0.0001"], ["smallest reachable is macs"]),
        (["output=tiny.yaml/run"], ["not writable"]),
        (["train.device=abacus"], ["train.device"]),
        (["nonsense"], ["key.path=value"]),
        (["trian.epochs=3"], ["override `trian.epochs=3`: `trian` is not a known key", "train"]),
        (
            ["shrink.budget.macs=-1"],
            ["override `shrink.budget.macs=-1`: `shrink.budget` is refused: Budget.macs is -1"],
        ),
        (["train.threads=0"], ["override `train.threads=0`", "train.threads 0"]),
        (["train.optimizer.learning_rate=-1"], ["learning_rate -1"]),
        (["train.optimizer.learning_rate=.inf"], ["learning_rate inf must be above zero"]),
        (["train.optimizer.weight_decay=.inf"], ["weight_decay inf"]),
        (["from_scratch_rates.sgd=.inf"], ["sgd inf"]),
        (["train.warmup_epochs=100"], ["train.warmup_epochs is 100 of train.epochs", "warm up for fewer"]),
        (["train.gamma=.inf"], ["train.gamma is inf"]),
        (["seed=99999999999999999999"], ["seed is 99999999999999999999"]),
        (["deploy.parity_samples=0"], ["parity_samples 0 must be at least 1"]),
        (["deploy.benchmark.backends=[torch]"], ["names torch, which runs modules", "leave it out"]),
        (["deploy.benchmark.backends=[tensorrt]"], ["no backend can check the exported files"]),
    ],
    ids=[
        "unknown key",
        "wrong type",
        "key of other settings",
        "no data",
        "no root",
        "budget",
        "output",
        "device",
        "no key",
        "key of an override",
        "budget below zero",
        "threads",
        "learning rate",
        "no finite learning rate",
        "no finite decay",
        "no finite rate from scratch",
        "warm-up longer than the training",
        "no finite gamma",
        "seed",
        "no samples",
        "no backend that runs files",
        "no backend",
    ],
)
def test_bad_input_exits_with_1_and_says_where(here, capsys, overrides, expected):
    code, _, errors = prunus(capsys, "run", "tiny.yaml", *overrides)
    assert code == 1
    assert errors.startswith("prunus: ")
    assert "Traceback" not in errors
    assert not list(here.glob("runs/*/checkpoints"))  # before anything is trained
    for text in expected:
        assert text in errors.replace("\n", " ")


def test_test_images_that_are_not_there_are_missed_before_anything_is_trained(here, capsys):
    for split in ("train", "val", "test"):
        for kind in ("", "annot"):
            folder = here / "camvid" / f"{split}{kind}"
            folder.mkdir(parents=True)
            for number in range(4):
                pixels = np.zeros((16, 32) if kind else (16, 32, 3), np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.png")
        lines = [f"{split}/{number}.png {split}annot/{number}.png" for number in range(4)]
        (here / "camvid" / f"{split}.txt").write_text("\n".join(lines))
    (here / "camvid" / "testannot" / "2.png").unlink()
    data = ["data.class_path=prunus.data.CamVidData", "data.root=camvid", "data.size=[16, 32]"]
    code, _, errors = prunus(capsys, "run", "tiny.yaml", *data)
    assert code == 1 and "testannot/2.png" in errors
    assert not list(here.glob("runs/*/checkpoints"))


def test_overrides_may_stand_behind_an_option_and_strangers_are_refused(here, capsys):
    code, _, errors = prunus(capsys, "run", "tiny.yaml", "--accept-changes", "train.epochs=0")
    assert code == 1 and "train.epochs is 0" in errors
    with pytest.raises(SystemExit) as exit_:
        cli.main(["run", "tiny.yaml", "--frob", "train.epochs=1"])
    assert exit_.value.code == 2
    assert "unrecognized arguments: --frob train.epochs=1; `prunus run --help` lists" in capsys.readouterr().err
    code, _, errors = prunus(capsys, "quantize", "n.onnx", "--data", "tiny.yaml", "--samples", "2", "train.epochs=0")
    assert code == 1 and "train.epochs is 0" in errors


NETWORK = ["tiny:TinySegmenter", "--shape", "1,3,16,32"]


def test_every_set_counts(here, capsys):
    code, out, _ = prunus(capsys, "trace", *NETWORK, "--set", "num_classes=3", "--set", "width=8")
    assert code == 0 and "encoder.0" in out


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["trace", "nomod:x"], "nomod:x: the module nomod cannot be imported"),
        (["trace", ":x"], "':x' is not a network"),
        (["trace", *NETWORK, "--set", "num_classes=[1"], "not valid YAML"),
        (["trace", "torchvision.models:resnet18", "--set", "weights=nope"], "cannot be built with {'weights': 'nope'}"),
        (["bench", "tiny:build", "tiny:build", "--shape", "3,16,32"], "two networks are called tiny:build"),
    ],
)
def test_networks_that_cannot_be_had_are_said(here, capsys, arguments, expected):
    code, _, errors = prunus(capsys, *arguments)
    assert code == 1 and expected in errors.replace("\n", " ")


def test_paths_are_printed_as_they_are(here, capsys):
    folder = here / "runs" / "a[b]c:x:"
    folder.mkdir(parents=True)
    code, _, errors = prunus(capsys, "report", str(folder))
    assert code == 1 and str(folder) in errors.replace("\n", "")
    (folder / "records.jsonl").touch()
    code, _, errors = prunus(capsys, "report", str(folder))
    assert code == 1 and "is empty" in errors and not (folder / "report.html").exists()


def test_no_such_recipe(here, capsys):
    code, _, errors = prunus(capsys, "run", "stret_erfnet")
    assert code == 1
    assert "stret_erfnet" in errors and "prunus recipes" in errors


def test_a_key_of_the_file_is_named_with_its_line(here, capsys):
    path = here / "tiny.yaml"
    path.write_text(path.read_text().replace("report_samples", "report_sample"))
    code, _, errors = prunus(capsys, "run", "tiny.yaml")
    line = 1 + path.read_text().splitlines().index("report_sample: 1")
    assert code == 1
    assert f"tiny.yaml, line {line}" in errors and "report_samples" in errors


def test_an_error_of_the_system_is_no_traceback(here, capsys, monkeypatch):
    def full(*arguments, **settings):
        raise OSError(28, "No space left on device", "narrow.onnx")

    monkeypatch.setattr("prunus.pipeline.run", full)
    code, _, errors = prunus(capsys, "run", "tiny.yaml")
    assert code == 1
    assert "No space left on device: 'narrow.onnx'" in errors


# ---------------------------------------------------------------- commands


def test_recipes_lists_each_with_its_first_line(here, capsys):
    (here / "recipes").mkdir()
    tiny.write_recipe(here / "recipes")
    code, output, _ = prunus(capsys, "recipes")
    assert code == 0
    assert "recipes/tiny.yaml  A whole run in seconds." in output
    for name in ("street_erfnet", "camvid_erfnet", "cityscapes_erfnet"):
        assert any(line.startswith(f"{name}  ") and len(line) > len(name) + 20 for line in output.splitlines())


def test_export_writes_a_file_that_bench_times(here, capsys):
    code, output, _ = prunus(
        capsys, "export", "tiny:TinySegmenter", "--shape", "1,3,16,32", "--set", "num_classes=3", "--output", "a.onnx"
    )
    assert code == 0
    assert "a.onnx: equal to PyTorch" in output and (here / "a.onnx").is_file()
    code, output, _ = prunus(capsys, "bench", "one=a.onnx", "--repeats", "2")
    assert code == 0
    assert "one" in output and "median ms" in output and "1 x 3 x 16 x 32" in output
    options = ["--resolutions", "16x32,32x64", "--output", "a.csv", "--layers", "--repeats", "2"]
    code, output, _ = prunus(capsys, "bench", "wide=tiny:build", "narrow=tiny:build", "--shape", "3,8,8", *options)
    assert code == 0
    assert "1 x 3 x 32 x 64" in output and "operators" in output
    assert len((here / "a.csv").read_text().splitlines()) == 1 + 2 * 2
    targets = ["--target", "onnxruntime,threads=2", "--target", "onnxruntime,resolution=16x16", "--output", "a.json"]
    code, output, _ = prunus(capsys, "bench", "wide=tiny:build", "--shape", "3,16,32", *targets, "--repeats", "2")
    assert code == 0
    assert "1 x 3 x 16 x 32, 2 thread(s)" in output and "1 x 3 x 16 x 16, 1 thread(s)" in output
    assert [row["threads"] for row in json.loads((here / "a.json").read_text())] == [2, 1]
    code, _, errors = prunus(capsys, "bench", "one=a.onnx", "--target", "onnxruntime,cores=2")
    assert code == 1 and "not one of its settings" in errors
    code, _, errors = prunus(capsys, "bench", "one=a.onnx", "--output", "a.xls")
    assert code == 1 and "ends in .csv or .json" in errors
    code, _, errors = prunus(capsys, "bench", "one=a.onnx", "--shape", "1,3,16,32")
    assert code == 1
    assert "does not fit one, whose input is (3, 16, 32): give it without the batch" in errors


def test_a_network_whose_weights_are_no_numbers_is_not_proved(here, capsys):
    code, _, errors = prunus(capsys, "export", "test_cli:broken", "--shape", "1,3,16,32")
    assert code == 1
    assert "infinite, not a number" in errors and "look at the network's weights first" in errors


def broken():
    """A network that has diverged."""
    network = tiny.TinySegmenter(num_classes=3)
    nn.init.constant_(network.decoder.bias, math.nan)
    return network


def test_the_version_is_told(capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out.startswith("prunus ")


def test_trace_says_what_can_be_removed_and_why_not(here, capsys):
    code, output, _ = prunus(capsys, "trace", "tiny:TinySegmenter", "--shape", "1,3,16,32", "--set", "num_classes=3")
    lines = {line.split()[0]: line.split()[1:] for line in output.splitlines() if line.strip()}
    assert code == 0
    assert lines["encoder.0"][:2] == ["16", "16"] and lines["encoder.3.body.0"][:2] == ["32", "32"]
    assert lines["decoder"][:4] == ["3", "-", "-", "3"]
    assert "reaches the network's output" in output


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["trace", "tiny"], "module:callable"),
        (["trace", "no.such.module:net"], "cannot be imported"),
        (["trace", "tiny:Nothing"], "has no Nothing"),
        (["trace", "tiny:TinySegmenter"], "--set key=value"),
        (["trace", "tiny:example"], "returns a Tensor"),
        (["trace", "tiny:TinySegmenter", "--set", "num_classes"], "key=value"),
        (["trace", "tiny:TinySegmenter", "--set", "num_classes=3", "--shape", "1,5,16,32"], "channels"),
        (["bench", "missing.onnx"], "missing.onnx does not exist"),
        (["bench", "tiny:build", "--output", "no/table.csv"], "there is no folder no"),
        (
            ["trace", "tiny:TinySegmenter", "--set", "num_classes=3", "--shape", "99999,3,99999,9999"],
            "no example of the",
        ),
        (["export", "tiny:TinySegmenter", "--set", "num_classes=3", "--backend", "torch"], "runs modules, not files"),
        (["bench", "tiny.yaml.onnx"], "tiny.yaml.onnx"),
        (["bench", "missing.onnx", "--backends", "onnxruntim"], "onnxruntime"),
        (["report", "nowhere"], "not the folder of a run"),
    ],
)
def test_each_command_refuses_readably(here, capsys, arguments, expected):
    code, _, errors = prunus(capsys, *arguments)
    assert code == 1
    assert errors.startswith("prunus: ") and expected in errors


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_outside_training_a_signal_ends_the_run_with_its_code(here, capsys, monkeypatch, number, code):
    monkeypatch.setattr("prunus.pipeline.run", lambda *ignored, **settings: os.kill(os.getpid(), number))
    before = signal.getsignal(signal.SIGTERM)
    assert prunus(capsys, "run", "tiny.yaml")[0] == code
    assert signal.getsignal(signal.SIGTERM) is before
