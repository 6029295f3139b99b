"""A Shrinker in a loop of one's own with DistributedDataParallel: what `two.py` did in each process, seen from here."""

import json
import os
import subprocess
import sys
from pathlib import Path

import loops
import pytest
import two

import prunus


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, two.__file__, folder], capture_output=True, text=True, env=environment, timeout=250
    )
    assert done.returncode == 0, done.stderr
    names = [function.__name__ for function in two.SCENARIOS]
    return {name: [json.loads(Path(folder, f"{name}-{rank}.json").read_text()) for rank in (0, 1)] for name in names}


@pytest.mark.parametrize("name", ["wrapped_anew", "accumulated", "timed"])
def test_both_processes_shrink_alike(results, name):
    first, second = results[name]
    assert first == second and first["cuts"] > 2
    if name != "timed":
        assert first["macs"] <= 0.4 * prunus.trace(loops.build(), loops.EXAMPLE).macs()


def test_a_wrapper_of_the_former_shapes_is_noticed_in_the_first_step_after_a_cut(results):
    for said in results["not_wrapped_anew"]:
        assert "the processes have different gradients" in said and "DistributedDataParallel(model)" in said
