"""For all tests: Ctrl-C works, also where they were started in the background, which makes processes ignore it; and the
user's own files are left alone."""

import os
import signal
import tempfile


def pytest_configure() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ["XDG_STATE_HOME"] = tempfile.mkdtemp(prefix="prunus-state-")
