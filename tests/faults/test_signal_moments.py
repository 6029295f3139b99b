"""Real signals at random moments of every command: it ends soon with 143 or 130, and a run goes on to equal weights."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent / "signalled.py"
OTHERS = ["shrink", "sweep", "trace", "export", "bench", "report", "compare", "quantize"]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


@pytest.mark.parametrize(("moments", "others"), [(2, []), pytest.param(200, OTHERS, marks=pytest.mark.slow)])
def test_a_signal_at_any_moment_ends_the_command_and_the_run_goes_on_to_equal_weights(tmp_path, moments, others):
    command = [sys.executable, SCRIPT, tmp_path, str(moments), str(moments), *others]
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, timeout=3400)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["wrong"] == []
    assert sum(told["sent"].values()) >= moments
    assert told["slowest"][0] < 10, told["slowest"]
    assert told["runs"] == told["equal"]
    assert told["runs"] >= 1 and (not others or all(told["sent"].values()))


STUCK = """
import ctypes, sys, time
from prunus import interrupt
with interrupt.whole_process():
    if sys.argv[1] == "training":
        with interrupt.interruptible():
            print("now", flush=True)
            ctypes.CDLL(None).sleep(60)
    if sys.argv[1] == "slow steps":
        interrupt.STEP_S = 1.0
        with interrupt.interruptible() as asked:
            for step in range(3):
                if step == int(sys.argv[2]):
                    print("now", flush=True)
                time.sleep(60 if step == 2 else 1.5)  # longer than STEP_S; the last one hangs
                if asked.number:
                    time.sleep(2)  # writes a checkpoint
                    sys.exit(3)
    print("now", flush=True)
    while time.time() < {until}:  # a call into C that is taken up again after a signal: Python's handlers do not run
        ctypes.PyDLL(None).poll(None, 0, 100)
"""


@pytest.mark.parametrize(
    ("place", "number", "code"), [("anywhere", signal.SIGTERM, 143), ("training", signal.SIGINT, 130)]
)
def test_what_never_asks_is_ended_by_the_deadline_or_a_second_signal(place, number, code):
    program = STUCK.replace("{until}", str(time.time() + 60))
    with subprocess.Popen(
        [sys.executable, "-c", program, place], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "now\n"
        began = time.monotonic()
        process.send_signal(number)
        if place == "training":  # whose deadline is later
            time.sleep(0.7)
            assert process.poll() is None
            process.send_signal(number)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == code
    assert time.monotonic() - began < 10
    assert "stopped at once" in errors


@pytest.mark.parametrize(("step", "code"), [(1, 3), (2, 143)])
def test_a_training_has_the_time_of_its_steps_and_a_checkpoint_and_no_more(step, code):
    program = STUCK.replace("{until}", "0")
    with subprocess.Popen(
        [sys.executable, "-c", program, "slow steps", str(step)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout.readline() == "now\n"
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == code
    assert ("stopped at once" in errors) == (code == 143)


EARLY = """
import os, signal, sys, threading
from prunus import cli, interrupt
place, number = sys.argv[1], int(sys.argv[2])
start, restore = threading.Thread.start, interrupt.Interrupt.restore
def at(name, done, *given):
    if place == name:
        os.kill(os.getpid(), number)
    return done(*given)
threading.Thread.start = lambda thread: at("setting up", start, thread)
interrupt.Interrupt.restore = lambda flag: (restore(flag), at("handing back", int))
whole = interrupt.whole_process
interrupt.whole_process = lambda: at("at the very beginning", whole)
sys.exit(cli.main(["recipes"]))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("place", ["at the very beginning", "setting up", "handing back"])
def test_a_signal_while_handlers_are_set_or_handed_back_ends_the_process_by_it(place, number):
    command = [sys.executable, "-c", EARLY, place, str(int(number))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode in (128 + number, -number)  # a shell says 143 of both
    assert "Traceback" not in done.stderr
