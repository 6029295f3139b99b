"""The journal of a sweep: the result of each budget, in optuna's journal storage, which many workers may write."""

from pathlib import Path
from typing import Any

from prunus.errors import RecipeError

FILE_NAME, STUDY = "journal.log", "sweep"
MOST = 1e18  # upper limit of a budget


class Journal:
    """The journal in a sweep's folder.

    Raises:
        RecipeError: optuna is not installed, or the file is no journal.
    """

    def __init__(self, folder: Path) -> None:
        try:
            import optuna
            from optuna.storages import JournalStorage
            from optuna.storages.journal import JournalFileBackend
        except ImportError as error:
            raise RecipeError(f"a sweep needs optuna ({error}): pip install 'prunus[sweep]'") from error
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        folder.mkdir(parents=True, exist_ok=True)
        self._optuna: Any = optuna
        try:
            self._study: Any = optuna.create_study(
                storage=JournalStorage(JournalFileBackend(str(folder / FILE_NAME))),
                study_name=STUDY,
                directions=["maximize", "minimize"],
                load_if_exists=True,
            )
        except Exception as error:  # optuna raises various types for a damaged file
            raise RecipeError(
                f"{folder / FILE_NAME} cannot be read as a journal ({type(error).__name__}: {error}): move it away; "
                "the runs beside it stay as they are"
            ) from error

    def tell(self, budget: float, metric: float, milliseconds: float) -> None:
        """Record the metric and the milliseconds of a budget's network, only once."""
        complete = self._optuna.trial.TrialState.COMPLETE
        if not any(trial.params.get("budget") == budget for trial in self._study.get_trials(states=(complete,))):
            self._add(budget, values=[metric, milliseconds])

    def tell_failure(self, budget: float, reason: str) -> None:
        """Record that a budget cannot be met."""
        self._add(budget, state=self._optuna.trial.TrialState.FAIL, user_attrs={"reason": reason})

    def _add(self, budget: float, **what: Any) -> None:
        space = {"budget": self._optuna.distributions.FloatDistribution(0.0, MOST)}
        self._study.add_trial(self._optuna.trial.create_trial(params={"budget": budget}, distributions=space, **what))
