"""For all tests: Ctrl-C works, also where they were started in the background, which makes processes ignore it; and the
user's own files are left alone."""

import os
import shutil
import signal
import tempfile

import pytest

from prunus.cli import process


def pytest_configure(config: pytest.Config) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    process.wait_politely()  # beside other work threads that spin would make some tests a hundred times as long
    os.environ["XDG_STATE_HOME"] = folder = tempfile.mkdtemp(prefix="prunus-state-")
    config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))
