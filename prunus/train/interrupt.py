"""The error that a training raises after it has been asked to stop."""

from prunus.errors import TrainingError
from prunus.interrupt import Interrupt, interruptible

__all__ = ["Interrupt", "InterruptedTrainingError", "interruptible"]


class InterruptedTrainingError(TrainingError):
    """Somebody asked the training to stop; a checkpoint was written first."""

    def __init__(self, number: int, message: str) -> None:
        super().__init__(message)
        self.signal = number
