"""For all tests: Ctrl-C works, also where the tests were started in the background, which makes processes ignore it."""

import signal


def pytest_configure() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
