"""Two processes train one network: what `team.py` did in each, seen from here."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import team

from prunus.records import EpochRecord, read
from prunus.train.distributed import ALONE

pytestmark = pytest.mark.timeout(600)  # seconds, on a machine that does much else
TEAM = Path(team.__file__)
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def results(folder, name):
    return [json.loads((folder / f"{name}-{rank}.json").read_text()) for rank in range(team.COUNT)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("team")
    done = subprocess.run([sys.executable, TEAM, folder], capture_output=True, text=True, env=ENVIRONMENT, timeout=500)
    assert done.returncode == 0, done.stderr
    return folder


def test_two_train_as_one(folder, tmp_path):
    first, second = results(folder, "as_one")
    alone = team.as_one(ALONE, tmp_path)
    assert first["weights"] == second["weights"]
    assert first["weights"] == pytest.approx(alone["weights"], abs=1e-5)
    assert first["losses"] == pytest.approx(alone["losses"], rel=1e-5)
    for found, expected in zip(first["metrics"], alone["metrics"], strict=True):
        assert found == pytest.approx(expected, abs=2e-3)  # a pixel or two lie on the edge


def test_the_metrics_of_one_network_are_equal_to_the_last_bit(folder, tmp_path):
    first, second = results(folder, "metrics")
    assert first == second == json.loads(json.dumps(team.metrics(ALONE, tmp_path)))


def test_all_shrink_alike_and_only_the_first_writes(folder):
    told = read(folder / "shrinking")
    first, second = results(folder, "shrinking")
    assert first["weights"] == second["weights"] and first["plan"] == second["plan"]
    assert len(json.loads(first["plan"])) > 0
    assert [record.epoch for record in told if isinstance(record, EpochRecord)] == [1, 2, 3, 4]


def test_a_signal_to_one_stops_all_after_the_same_step_and_they_go_on_bit_by_bit(folder):
    undisturbed, _ = results(folder, "shrinking")
    for result in results(folder, "interrupted"):
        assert "in epoch 3, after step 3 of 4" in result["said"]  # the answer comes a step later
        assert result["weights"] == undisturbed["weights"]


def test_fewer_processes_can_go_on(folder):
    steps = []
    team.trained(ALONE, folder / "begun", ticked=lambda name, step, of, loss: steps.append(step))
    assert steps == list(range(12, 17))  # of 16; asked after the tenth, answered after the eleventh
    assert [record.epoch for record in read(folder / "begun") if isinstance(record, EpochRecord)] == [1, 2, 3, 4]


def test_a_difference_stops_all_and_says_where(folder):
    for said in results(folder, "different"):
        assert said.startswith("after the cut at the end of epoch 2, the processes no longer hold the same network")
        assert "decoder.bias" in said and "of process 1 differ from process 0" in said


def test_in_bfloat16_they_stay_alike_too(folder):
    first, second = results(folder, "halved")
    assert first == second != results(folder, "shrinking")[0]["weights"]


def test_what_the_first_measures_holds_for_all(folder):
    first, second = results(folder, "timed")
    assert first == second and 4000 < first["params"] <= 5000
    assert "cannot be met" in first["said"]


def test_a_batch_that_cannot_be_divided_is_refused(folder):
    for said in results(folder, "uneven"):
        assert "a batch of 5 samples cannot be divided among 2 processes" in said


def test_a_killed_process_is_restarted_and_the_run_ends_as_if_nothing_had_been(folder, tmp_path):
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--max-restarts=1"]
    command += ["--rdzv-backend=c10d", "--rdzv-endpoint=127.0.0.1:0", str(TEAM), str(tmp_path)]
    environment = {**ENVIRONMENT, "PRUNUS_TEAM": "restarted"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=500)
    assert done.returncode == 0, done.stderr
    assert "SIGKILL" in done.stderr or "exitcode: -9" in done.stderr
    undisturbed, _ = results(folder, "shrinking")
    assert results(tmp_path, "restarted") == [undisturbed["weights"]] * 2
