"""Run a function in two processes that are forked from this one."""

import os
import socket
import traceback

COUNT = 2


def in_two_processes(run):
    """Call `run(rank, port)` in each of two processes, with a port that is free; return their exit codes."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    children = []
    for rank in range(COUNT):
        if (child := os.fork()) == 0:
            try:
                run(rank, port)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        children.append(child)
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
