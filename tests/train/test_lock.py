import os
import signal
import subprocess
import sys

import pytest

from prunus.errors import CheckpointError
from prunus.train.lock import lock

HOLD = """
import sys, time
from pathlib import Path
from prunus.train.lock import lock
with lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""
# The child outlives its parent and keeps the descriptor that it inherited, as a data worker would.
FORK = HOLD.replace('print("held"', 'import os; os.fork() or time.sleep(5) or os._exit(0); print("held"')


def start(script, folder):
    process = subprocess.Popen([sys.executable, "-c", script, str(folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    return process


@pytest.mark.parametrize("script", [HOLD, FORK])
def test_another_process_is_refused_until_the_holder_is_killed(tmp_path, script):
    with start(script, tmp_path) as process:
        with (
            pytest.raises(CheckpointError, match=rf"in use by another run \(process {process.pid}\)"),
            lock(tmp_path),
        ):
            pass
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        with lock(tmp_path):
            pass


def test_one_process_does_not_enter_twice_and_the_refusal_does_not_free_it(tmp_path):
    with lock(tmp_path):
        with pytest.raises(CheckpointError, match=f"process {os.getpid()}"), lock(tmp_path):
            pass
        script = HOLD.replace("time.sleep(60)", "pass")
        result = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True)
        assert "FolderInUseError" in result.stderr
    with lock(tmp_path):
        pass


def test_two_folders_are_two_locks(tmp_path):
    with lock(tmp_path / "a"), lock(tmp_path / "b"):
        holders = [(tmp_path / name / ".lock").read_text() for name in "ab"]
    assert holders == [f"{os.getpid()}\n"] * 2


def test_an_error_inside_frees_the_lock(tmp_path):
    with pytest.raises(ZeroDivisionError), lock(tmp_path):
        1 / 0  # noqa: B018
    with lock(tmp_path):
        entered = True
    assert entered


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="is not writable"), lock(tmp_path / "file" / "run"):
        pass
