"""From the network as built to the one that is deployed, stage by stage: edits, training, edits, training."""

import copy
import dataclasses
import functools
from collections.abc import Callable, Collection

from torch import Tensor, nn

from prunus.budget.latency_search import Meter
from prunus.errors import EditError, RecipeError
from prunus.graph import trace
from prunus.pipeline.recipe import JOINT, NARROW, Stage
from prunus.pipeline.reshape import Reshaping
from prunus.records import EXACT, EditRecord
from prunus.surgery import Edit, Plan, apply
from prunus.train import penalty_binding
from prunus.train.begin import target
from prunus.train.contracted import expanded
from prunus.train.distributed import ALONE, Processes
from prunus.train.latency_target import refuse_too_slow
from prunus.verify.removal_law import apart, outputs


@dataclasses.dataclass(frozen=True, kw_only=True)
class Network:
    """A network that a run has come to.

    Attributes:
        name: in records, files and the report.
        model: the network.
        plan: leads to it from the network as built.
        edits: of the plan, with what each was measured to change.
        seconds: of all training that it took.
        records: that the run had when its last training ended.
    """

    name: str
    model: nn.Module
    plan: Plan = Plan()  # noqa: RUF009 - frozen
    edits: tuple[EditRecord, ...] = ()
    seconds: float = 0.0
    records: int = 0


def network_name(stages: tuple[Stage, ...], stage: Stage) -> str:
    """Return what the network is called that `stage` leads to: the last is the narrow one."""
    return NARROW if stage.name == stages[-1].name else stage.name


def training_name(stage: Stage) -> str:
    """Return what the stage's training is called."""
    return NARROW if stage.name == JOINT else stage.name


def planned(stage: Stage, number: int, model: nn.Module, inputs: Tensor) -> Plan:
    """Return the stage's edit `number` for `model` as it is; say where it stands if it makes no sense there."""
    reshaping: Reshaping = stage.edits[number]
    try:
        return reshaping.plan(model, inputs)
    except EditError as error:
        place = f"stage {stage.name}, edits[{number}] ({type(reshaping).__name__})"
        raise EditError(f"{place}: {error}") from error


def reshaped(network: Network, stage: Stage, inputs: Tensor) -> Network:
    """Do the stage's edits, each measured.

    Raises:
        EditError: an edit makes no sense at its place, or is not as exact as it must be.
    """
    for number in range(len(stage.edits)):
        plan = planned(stage, number, network.model, inputs)
        model, records = measured(network.model, plan, inputs)
        network = dataclasses.replace(network, model=model, plan=network.plan + plan, edits=(*network.edits, *records))
    return network


def measured(model: nn.Module, plan: Plan, inputs: Tensor) -> tuple[nn.Module, list[EditRecord]]:
    """Do the edits of `plan` one by one, in the network's own precision and in float64, and compare the outputs.

    Raises:
        EditError: an edit that is exact changed the output by more than rounding. That would be an error of Prunus.
    """
    if not plan:
        return model, []
    model, inputs = model.cpu(), inputs.cpu()  # TF32 of a GPU would round at 1e-3
    pair, examples = [copy.deepcopy(model), copy.deepcopy(model).double()], [inputs, inputs.double()]
    before = [outputs(each, (example,)) for each, example in zip(pair, examples, strict=True)]
    records = list[EditRecord]()
    for edit in plan:
        pair = [_edited(edit, each) for each in pair]
        after = [outputs(each, (example,)) for each, example in zip(pair, examples, strict=True)]
        single, precise = (apart(old, new)[1] for old, new in zip(before, after, strict=True))
        if edit.exact and (single > EXACT["float32"] or precise > EXACT["float64"]):
            raise EditError(
                f"{edit.summary()}: the output changed by {single:.1e} in float32, {precise:.1e} in float64, and the "
                f"edit is exact: at most {EXACT} is rounding; please report it with the model's code"
            )
        records.append(record_of(edit, single, precise))
        before = after
    return apply(plan, model), records


def _edited(edit: Edit, own: nn.Module) -> nn.Module:
    """Do one edit to a network that nobody else has; where it only replaces modules, without another copy."""
    new = edit.successors(own)
    if new is None:
        return apply(edit, own)
    for path, module in new.items():
        old = own.get_submodule(path)
        places = [place for place, other in own.named_modules(remove_duplicate=False) if other is old]
        for place in places:
            own.set_submodule(place, module)
    return own


def record_of(edit: Edit, single: float | None = None, precise: float | None = None) -> EditRecord:
    """Return the record of an edit; what training removes is measured in the shrink records."""
    return EditRecord(
        edit=type(edit).__name__,
        summary=edit.summary(),
        exact=edit.exact,
        max_rel_diff=single,
        max_rel_diff_float64=precise,
    )


def rehearse(
    stages: tuple[Stage, ...],
    model: nn.Module,
    inputs: Tensor,
    meter: Callable[[nn.Module], Meter] | None = None,
    processes: Processes = ALONE,
    begun: Collection[str] = (),
) -> None:
    """Walk all stages without a training, so that an order that makes no sense is refused before hours of it.

    `meter` makes what times the networks of a stage, from the one that it begins with; trainings that have `begun` have
    passed this before.

    Raises:
        EditError, RecipeError, BudgetError: names the stage, and what to do.
    """
    for stage in stages:
        for number in range(len(stage.edits)):
            model = apply(planned(stage, number, model, inputs), model)
        if stage.train is None:
            continue
        groups = trace(model, inputs)
        if stage.shrink is not None:
            if expanded(model):
                raise RecipeError(
                    f"stage {stage.name}: a budget counts the multiply-adds of what is deployed, and the network is "
                    "expanded here: contract it in a stage before (prunus.pipeline.Contract), or train this one with "
                    "`shrink: null` and a GroupLasso, whose zero channels are removed too"
                )
            budget = stage.shrink.budget
            aim = target(model, groups, inputs, budget)
            if budget.is_timed and training_name(stage) not in begun:
                timed = functools.partial(meter, model) if meter is not None else None
                processes.once(functools.partial(refuse_too_slow, model, groups, budget, aim, timed))
        if stage.penalty is not None:
            rate = stage.train.optimizer.learning_rate
            penalty_binding.bind(
                penalty_binding.calibrated(stage.penalty, model, inputs, rate, 1), model, groups, inputs
            )
    if expanded(model):
        raise RecipeError(
            "the network is still expanded at the end: a stage of `then` must contract it (class_path: "
            "prunus.pipeline.Contract), or all its factors would be deployed"
        )
