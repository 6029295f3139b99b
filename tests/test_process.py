"""What the command line sets before torch is loaded: how OpenMP's threads wait, where the user has not said it."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from prunus.cli import process

SHOW = """
import os, sys
from prunus.cli import process
assert "torch" not in sys.modules
{before}
process.wait_politely()
print({{name: os.environ.get(name) for name in process.SET_BY_USER}})
"""


def settings(before="", **environment):
    clean = {name: value for name, value in os.environ.items() if name not in process.SET_BY_USER}
    command = [sys.executable, "-c", SHOW.format(before=before)]
    done = subprocess.run(command, env=clean | environment, capture_output=True, text=True, check=True)
    return eval(done.stdout)


def test_the_setting_is_chosen_before_torch_is_loaded():
    assert settings() == {**process.WAITING, "OMP_WAIT_POLICY": None}


@pytest.mark.parametrize("name", process.SET_BY_USER)
def test_what_the_user_has_set_stays(name):
    assert settings(**{name: "7"}) == {other: "7" if other == name else None for other in process.SET_BY_USER}


def test_once_torch_is_loaded_nothing_is_set():
    assert set(settings(before="import types; sys.modules['torch'] = types.ModuleType('torch')").values()) == {None}


def test_the_command_line_is_imported_without_torch():
    code = "import sys; import prunus.cli; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_gnus_openmp_reads_it_in_the_command_line_and_in_what_it_starts(tmp_path):
    """Of a torch that brings another OpenMP nothing is known here."""
    import torch

    if "libgomp" not in Path("/proc/self/maps").read_text():
        pytest.skip(f"torch {torch.__version__} brings no libgomp here")
    (tmp_path / "child.py").write_text(
        "import subprocess, sys\nfrom tiny import TinySegmenter\n"
        "subprocess.run([sys.executable, '-c', 'import torch'], check=True)\n"
    )
    environment = {name: value for name, value in os.environ.items() if name not in process.SET_BY_USER}
    environment |= {"OMP_DISPLAY_ENV": "VERBOSE", "PYTHONPATH": os.pathsep.join([*sys.path, str(tmp_path)])}
    command = [sys.executable, "-m", "prunus.cli", "trace", "child:TinySegmenter", "--shape", "1,3,16,32"]
    command += ["--set", "num_classes=3"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = re.findall(r"GOMP_SPINCOUNT = '(\w+)'", done.stderr)
    assert len(found) >= 2 and set(found) == {process.SPINS}  # the command's own, and that of a process that it starts
