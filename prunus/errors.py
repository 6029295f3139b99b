"""All errors that Prunus raises deliberately.

    PrunusError
    ├── RecipeError       a recipe, a setting or a command that cannot be used
    ├── DataError         a folder, a file or an image that is not what a reader expects
    ├── TraceError        a network that cannot be read
    ├── EditError         an edit or a plan that does not fit the network
    ├── BudgetError       a budget that cannot be met
    ├── TrainingError     training that cannot continue
    │   ├── CheckpointError   a checkpoint that cannot be written or read
    │   │   └── FolderInUseError  a folder that another run holds
    │   └── InterruptedTrainingError  the training was asked to stop
    ├── DeployError       an export, a backend or a measurement that failed
    │   ├── ParityError       an exported network that does not equal its source
    │   └── QuantizationError a network that loses more than allowed in INT8
    ├── GateError         a narrow network that falls behind the wide one where it may not
    └── RecordError       a run folder whose records cannot be read

A message says what is wrong, where (a path in the network, a file, a key), why, and what to do.
"""


class PrunusError(Exception):
    """The root of all errors: `except prunus.PrunusError` catches all that Prunus refuses."""


class RecipeError(PrunusError):
    """A recipe, a setting or a command that cannot be used."""


class DataError(PrunusError):
    """A folder, a file or an image that is not what a reader expects."""


class TraceError(PrunusError):
    """A network that cannot be read."""


class EditError(PrunusError):
    """An edit or a plan that does not fit the network."""


class BudgetError(PrunusError):
    """A budget that cannot be met."""


class TrainingError(PrunusError):
    """Training that cannot continue."""


class CheckpointError(TrainingError):
    """A checkpoint that cannot be written or read."""


class FolderInUseError(CheckpointError):
    """A folder that another run holds."""


class InterruptedTrainingError(TrainingError):
    """The training was asked to stop; a checkpoint was written first."""

    def __init__(self, number: int, message: str) -> None:
        super().__init__(message)
        self.signal = number


class DeployError(PrunusError):
    """An export, a backend or a measurement that failed."""


class ParityError(DeployError):
    """An exported network that does not equal its source."""


class QuantizationError(DeployError):
    """A network that loses more than allowed in INT8."""


class GateError(PrunusError):
    """A narrow network that falls behind the wide one where it may not."""


class RecordError(PrunusError):
    """A run folder whose records cannot be read."""
