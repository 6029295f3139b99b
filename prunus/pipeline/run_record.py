"""The record of a run's start (recipe, data, weights), and of the differences when the run is resumed."""

import datetime
import shlex
import sys
from typing import Any

from prunus.data.inventory import inventory, inventory_differences
from prunus.errors import DataError
from prunus.models.factory import build
from prunus.models.weights import load_
from prunus.pipeline.environment import hardware, versions
from prunus.pipeline.recipe import Recipe
from prunus.pipeline.run_folder import recipe_differences
from prunus.records import NoteRecord, Recorder, RunRecord, lines
from prunus.terminal import visible


def run_record_of(recipe: Recipe, resolved: dict[str, Any], input_shape: tuple[int, ...]) -> RunRecord:
    """Return the record of a run's start; `resolved` is the recipe with all defaults."""
    return RunRecord(
        name=recipe.name,
        command=visible(shlex.join(["prunus", *sys.argv[1:]])),
        seed=recipe.seed,
        recipe=resolved,
        versions=versions(),
        hardware=hardware(),
        started=datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        class_names=tuple(recipe.data.class_names),
        palette=tuple(recipe.data.palette),
        num_classes=classes if isinstance(classes := recipe.data.num_classes, dict) else {},
        data=inventory(recipe.data),
        weights="" if recipe.starting_weights is None else recipe.starting_weights.sha256(),
        input_shape=input_shape,
        starts_wide=recipe.starts_wide and recipe.baseline is True,
    )


def record_weights(recorder: Recorder, recipe: Recipe) -> None:
    """Record which tensors of the network come from the recipe's weights.

    Raises:
        DataError, RecipeError: the weights cannot be read, or do not fit.
    """
    weights = recipe.starting_weights
    if weights is not None:
        found = load_(build(recipe.model, recipe.data.num_classes), weights)
        recorder.write(NoteRecord(text=f"The trainings begin with {weights.path}: {found.summary()}."))


def record_changes(recorder: Recorder, now: RunRecord) -> None:
    """Record the changes of recipe, data and weights since the run began, and the changed recipe."""
    begun = _begun(recorder)
    if begun is None:
        return
    if different := recipe_differences(begun.recipe, now.recipe):
        recorder.write(now)
        recorder.write(NoteRecord(text=f"The recipe was changed while the run was under way: {'; '.join(different)}."))
    if different := inventory_differences(begun.data, now.data):
        recorder.write(NoteRecord(text=f"The data changed while the run was under way: {'; '.join(different)}."))
    if begun.weights != now.weights:
        recorder.write(NoteRecord(text="The file of weights changed while the run was under way."))


def refuse_other_data(recorder: Recorder, now: RunRecord) -> None:
    """Refuse to resume, or to evaluate, with other data or weights than at the start of the run.

    Raises:
        DataError: they differ; the message lists the differences.
    """
    begun = _begun(recorder)
    if begun is not None and begun.weights != now.weights:
        raise DataError(
            f"the file of weights is not the one that the run in {recorder.path.parent} began with (SHA-256 "
            f"{begun.weights[:12]} then, {now.weights[:12]} now). Bring it back, choose another folder with "
            "output=..., or, to continue, give --accept-changes (in Python: accept_changes=True)"
        )
    if begun is not None and (different := inventory_differences(begun.data, now.data)):
        raise DataError(
            f"the data are not those that the run in {recorder.path.parent} began with: {'; '.join(different)}. Bring "
            "them back, choose another folder with output=..., or, to continue with these, give --accept-changes (in "
            "Python: accept_changes=True)"
        )


def _begun(recorder: Recorder) -> RunRecord | None:
    """Return the record of the run's start; None if it cannot be read any more."""
    if not recorder.count():
        return None
    return next((record for record in lines(recorder.path.parent) if isinstance(record, RunRecord)), None)
