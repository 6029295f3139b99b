"""kill -9 at random moments, checkpoint writes included: nothing that was reported saved is lost."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent / "killed.py"
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


@pytest.mark.parametrize("kills", [4, pytest.param(50, marks=pytest.mark.slow)])
def test_killed_at_random_moments_it_ends_at_the_weights_of_the_undisturbed_run(tmp_path, kills):
    command = [sys.executable, SCRIPT, tmp_path, str(kills), "0"]
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, timeout=1800)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["kills"] == kills and told["while_writing"] >= kills // 3
    assert told["lost"] == []
    assert told["runs"] >= 1 and told["equal"] == told["runs"]
