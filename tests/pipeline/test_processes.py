"""A whole run by two processes that torchrun starts: the first one writes, shows and deploys."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import tiny

from prunus.records import EpochRecord, EvaluationRecord, LatencyRecord, read

TESTS = Path(__file__).parents[1]
COMMAND = [
    *(sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2"),
    *("--rdzv-backend=c10d", "--rdzv-endpoint=127.0.0.1:0"),
    *("-m", "prunus.cli", "run", "tiny.yaml"),
]


@pytest.mark.slow
def test_a_whole_run_by_two(tmp_path):
    tiny.write_recipe(tmp_path)
    environment = {**os.environ, "PYTHONPATH": str(TESTS), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(COMMAND, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("report:") == 1
    records = read(tmp_path / "runs" / "tiny")
    epochs = [(record.model, record.epoch) for record in records if isinstance(record, EpochRecord)]
    assert len(epochs) == len(set(epochs)) == 8
    assert {record.images for record in records if isinstance(record, EvaluationRecord)} == {4}
    assert any(isinstance(record, LatencyRecord) for record in records)
    assert (tmp_path / "runs/tiny/report.html").exists()
