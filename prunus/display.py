"""Progress of a run in the terminal."""

import contextlib
from collections.abc import Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from prunus.records import EpochRecord


class Display:
    """Show stages, a bar over the steps of a training, and a line per epoch."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]:.3f}"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
        )
        self._bar = self._progress.add_task("", total=None, visible=False, loss=0.0)
        self._headed = False

    @contextlib.contextmanager
    def live(self) -> Iterator[None]:
        """Draw the bar while the body runs."""
        with self._progress:
            yield

    def stage(self, text: str) -> None:
        """Print the name of the next stage."""
        self._progress.update(self._bar, visible=False)
        self._console.print(text, style="bold")
        self._headed = False

    def step(self, name: str, step: int, steps: int, loss: float) -> None:
        """Advance the bar."""
        self._progress.update(self._bar, description=name, completed=step, total=steps, loss=loss, visible=True)

    def epoch(self, record: EpochRecord) -> None:
        """Print an epoch's line, with a heading before the first."""
        main = next(iter(record.metrics.items()), None)
        if not self._headed:
            name = main[0] if main else "metric"
            self._console.print(
                f"  {'epoch':>7} {'loss':>7} {name:>7} {'channels':>9} {'MACs':>9} {'params':>9} {'s':>6}", style="dim"
            )
            self._headed = True
        value = f"{100 * main[1]:6.1f}%" if main else f"{'-':>7}"
        self._console.print(
            f"  {record.epoch:>3}/{record.epochs:<3} {record.loss:7.3f} {value} {record.channels:>9,} "
            f"{_short(record.macs):>9} {_short(record.params):>9} {record.seconds:6.1f}",
            highlight=False,
        )


def _short(number: int) -> str:
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.2f} {letter}"
    return str(number)
