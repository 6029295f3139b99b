"""Two hosts, each a network namespace with one node of torchrun; the link between them is cut in mid-epoch."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

TEAM = Path(__file__).parents[1] / "train" / "team.py"
HOSTS = {"prunus-a": "10.77.0.1", "prunus-b": "10.77.0.2"}
CUT = 20.0  # seconds, beyond the time after which the processes give each other up


def ip(*arguments, check=True):
    return subprocess.run(["ip", *arguments], check=check, capture_output=True, text=True)


@pytest.fixture
def hosts():
    """Two namespaces, joined by a pair of virtual cables."""
    first, second = HOSTS
    made = ip("netns", "add", first, check=False)
    if made.returncode:
        pytest.skip(f"network namespaces cannot be made here: {made.stderr.strip()}")
    try:
        ip("netns", "add", second)
        ip("link", "add", "cable", "netns", first, "type", "veth", "peer", "name", "cable", "netns", second)
        for name, address in HOSTS.items():
            ip("-n", name, "addr", "add", f"{address}/24", "dev", "cable")
            ip("-n", name, "link", "set", "cable", "up")
            ip("-n", name, "link", "set", "lo", "up")
        yield
    finally:
        for name in HOSTS:
            ip("netns", "del", name, check=False)


def node(rank, folder):
    """One node, begun anew when it fails, as a scheduler does."""
    name, address = list(HOSTS.items())[rank]
    command = (
        f"until {sys.executable} -m torch.distributed.run --nnodes=2 --nproc-per-node=1 "
        f"--max-restarts=3 --rdzv-backend=c10d --rdzv-id=run --rdzv-endpoint={HOSTS['prunus-a']}:29500 "
        f"--rdzv-conf=is_host={1 - rank},join_timeout=60,timeout=60 --local-addr={address} {TEAM} {folder}; "
        "do sleep 1; done"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "cable", "PRUNUS_TEAM": "slowly"}
    with (folder / f"node-{rank}.log").open("w") as log:
        return subprocess.Popen(
            ["ip", "netns", "exec", name, "bash", "-c", command], env=environment, stdout=log, stderr=subprocess.STDOUT
        )


@pytest.mark.slow
def test_the_link_is_cut_in_mid_epoch_and_the_run_ends_with_the_right_weights(tmp_path, hosts):
    nodes = [node(rank, tmp_path) for rank in range(2)]
    try:
        wait_for(tmp_path / "slowly" / "records.jsonl", '"epoch": 2,', nodes)
        time.sleep(1)
        ip("-n", "prunus-a", "link", "set", "cable", "down")
        time.sleep(CUT)
        ip("-n", "prunus-a", "link", "set", "cable", "up")
        codes = [process.wait(timeout=300) for process in nodes]
    finally:
        for name in HOSTS:
            for number in ip("netns", "pids", name).stdout.split():  # none, unless something failed
                os.kill(int(number), signal.SIGKILL)
    assert codes == [0, 0]
    logs = "".join((tmp_path / f"node-{rank}.log").read_text() for rank in range(2))
    assert "Traceback" in logs  # the cut was felt
    expected = undisturbed(tmp_path / "other")
    assert [json.loads((tmp_path / f"slowly-{rank}.json").read_text()) for rank in range(2)] == [expected] * 2


def undisturbed(folder):
    """The same training by two processes of one host."""
    folder.mkdir()
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--rdzv-backend=c10d"]
    command += ["--rdzv-endpoint=127.0.0.1:0", str(TEAM), str(folder)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PRUNUS_TEAM": "slowly"}
    subprocess.run(command, env=environment, check=True, capture_output=True)
    return json.loads((folder / "slowly-0.json").read_text())


def wait_for(path, text, nodes, seconds=120):
    until = time.monotonic() + seconds
    while not (path.exists() and text in path.read_text()):
        assert time.monotonic() < until and all(process.poll() is None for process in nodes)
        time.sleep(0.05)
