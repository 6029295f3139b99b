"""TensorBoard scalars, written from the records of epochs."""

from pathlib import Path
from types import TracebackType
from typing import Self

from torch.utils.tensorboard import SummaryWriter

from prunus.records import EpochRecord


class ScalarWriter:
    """Write each epoch's record as scalars, one TensorBoard run per training."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._writers: dict[str, SummaryWriter] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for writer in self._writers.values():
            writer.close()

    def write(self, record: EpochRecord) -> None:
        """Write loss, metrics, cost and learning rate of one epoch."""
        if record.model not in self._writers:
            self._writers[record.model] = SummaryWriter(str(self.folder / record.model))
        writer = self._writers[record.model]
        values = {f"metrics/{name}": value for name, value in record.metrics.items()}
        for name in ("loss", "learning_rate", "seconds", "macs", "params", "channels", "pressed"):
            values[f"training/{name}"] = getattr(record, name)
        for name, value in values.items():
            writer.add_scalar(name, value, record.epoch)
        writer.flush()
