"""A background thread that runs one task at a time: it writes checkpoints during the next training steps."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self


class Background:
    """A single background thread. A task's error is raised at the next `submit` or `wait`, or at the end."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._running: Future[object] | None = None

    def submit(self, work: Callable[[], object]) -> None:
        """Start `work` once the previous task is done."""
        self.wait()
        self._running = self._pool.submit(work)

    @property
    def busy(self) -> bool:
        """Whether a task is running."""
        return self._running is not None and not self._running.done()

    def wait(self) -> None:
        """Wait until no task is running."""
        running, self._running = self._running, None
        if running is not None:
            running.result()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.wait()
        except Exception as failure:
            if error is None:
                raise
            error.add_note(str(failure))
        finally:
            self._pool.shutdown()
