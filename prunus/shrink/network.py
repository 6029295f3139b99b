"""A network in training: the module, its optimizer and its following copies become narrower together."""

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from prunus.errors import EditError, TrainingError
from prunus.graph import ChannelGroups, trace
from prunus.modules.copying import copied
from prunus.modules.tree import mapped
from prunus.modules.undisturbed import undisturbed
from prunus.penalties import GroupSlices
from prunus.penalties.keep import kept_groups
from prunus.penalties.zeros import zero_groups
from prunus.records import ShrinkRecord
from prunus.shrink import checks
from prunus.shrink.in_place import become_, refill_
from prunus.shrink.processes import Processes
from prunus.surgery import Plan, apply, bypass
from prunus.surgery.carry import carried
from prunus.surgery.removal import removal, spare_layers
from prunus.verify import Change, change, outputs_in_both
from prunus.verify.rounding import Outputs


@dataclasses.dataclass(frozen=True, kw_only=True)
class CutResult:
    """The result of a cut.

    Attributes:
        record: for a reader.
        regrouped: maps values per group before the cut, [num_groups], to values per group after it.
    """

    record: ShrinkRecord
    regrouped: Callable[[Tensor], Tensor]


class NetworkInTraining:
    """A network, its optimizer, and its channel groups.

    Attributes:
        model: the network; stays the same object.
        optimizer: trains it, and other parameters where the network is part of a larger one.
        copies: networks of the same shapes that become narrower with it, such as an average of its weights.
        plan: all edits so far.
        groups: the present channel groups; those without trained parameters are kept.
        just_cut: no optimizer step has been taken since the last cut.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        example: tuple[Any, ...],
        kwargs: Mapping[str, Any] | None = None,
        processes: Processes | None = None,
    ) -> None:
        self.model, self.optimizer = model, optimizer
        self._example, self._kwargs = example, dict(kwargs or {})
        self.processes = Processes.present() if processes is None else processes
        self.copies = list[nn.Module]()
        self.just_cut = False
        self.plan = Plan()
        self.groups = self.read(model)

    @property
    def example(self) -> tuple[Any, ...]:
        """The example's positional arguments, on the network's device."""
        return self._there(self._example)  # type: ignore[no-any-return]

    @property
    def kwargs(self) -> dict[str, Any]:
        """The example's keyword arguments, on the network's device."""
        return self._there(self._kwargs)  # type: ignore[no-any-return]

    def _there(self, tree: Any) -> Any:
        device = next((tensor.device for tensor in (*self.model.parameters(), *self.model.buffers())), None)
        return mapped(lambda leaf: leaf.to(device) if isinstance(leaf, Tensor) else leaf, tree)

    def read(self, model: nn.Module) -> ChannelGroups:
        """Return the channel groups of `model`, this network or a narrower copy."""
        return self.trained(trace(model, self.example, self.kwargs), model)

    def trained(self, groups: ChannelGroups, model: nn.Module | None = None) -> ChannelGroups:
        """Return `groups`; those without a trained parameter are not removable."""
        trained = torch.zeros(len(groups) + 1, dtype=torch.bool)
        for one in GroupSlices.of(self.model if model is None else model, groups).slices:
            if one.parameter.requires_grad:
                trained[one.groups] = True  # index -1, no group, is the last
        return dataclasses.replace(groups, exact=groups.exact & trained[:-1])

    def cut_zeros(self, keep: Sequence[str], when: str, *, epoch: int) -> CutResult | None:
        """Remove the groups that are zero, as `cut` does, except those of the layers `keep` (`kept_groups`)."""
        self.processes.sync_buffers_(self.model)
        zeros = zero_groups(self.model, self.groups) & ~kept_groups(self.groups, keep)
        return self.cut(spare_layers(self.groups, zeros), when, epoch=epoch)

    def cut(self, chosen: Tensor, when: str, *, epoch: int, exact: bool = True) -> CutResult | None:
        """Remove the groups `chosen`, bool [num_groups], from the network, its optimizer and its copies; return None
        where `chosen` is empty.

        All processes must hold the same network afterwards.

        Args:
            chosen: process 0's counts.
            when: for messages.
            epoch: for the record.
            exact: the groups are zero, so the outputs may change only by rounding.

        Raises:
            TrainingError: the outputs would change by more than rounding, a bug in Prunus (nothing is changed then);
                or the processes hold different networks afterwards (names the tensors).
        """
        began, before = time.perf_counter(), self.groups
        removed = self.processes.share(chosen)
        plan = removal(before, removed)
        if not plan:
            return None
        small = apply(plan, self.model)
        found = self._change(self.model, small)
        if exact:
            _require_rounding(found, f"removing {int(removed.sum())} zero channel groups")
        groups, regrouped = before.without(removed), lambda values: values[~removed]
        vanished, smaller = self._without_constant_blocks(small)
        if vanished:
            narrower, groups = groups, self.read(smaller)
            regrouped = lambda values: _moved(values[~removed], narrower, groups)  # noqa: E731
        record = _record(epoch, before, groups, int(removed.sum()), found)
        self._become(plan + vanished, smaller)
        self.groups, self.plan, self.just_cut = groups, self.plan + plan + vanished, True
        self.processes.require_same(when, self.model, self.plan.to_json())
        record = dataclasses.replace(record, seconds=time.perf_counter() - began)
        return CutResult(record=record, regrouped=regrouped)

    def check_state(self) -> None:
        """Refuse an optimizer whose state, after its first step, cannot be cut.

        Raises:
            TrainingError: names the state.
        """
        checks.check_state(self.model, self.optimizer)

    def check_gradients(self) -> None:
        """In the first step after a cut, refuse gradients that differ between processes.

        Raises:
            TrainingError: they differ, since a wrapper has not been made again after the cut.
        """
        if self.just_cut:
            self.processes.require_same_gradients(self.model)
            self.just_cut = False

    def replay(self, plan: Plan, check: Callable[[ChannelGroups], None] = lambda groups: None) -> None:
        """Apply the edits of `plan` that have not been applied yet.

        Args:
            plan: edits from the network as built.
            check: gets the groups of the narrow network before any change, and raises where they do not fit.

        Raises:
            EditError: the plan does not fit the network, or other edits have been applied.
        """
        done = self.plan.edits
        if plan.edits[: len(done)] != done:
            raise EditError("the network has been cut in another way already: build it again, wide")
        rest = Plan(plan.edits[len(done) :])
        small = apply(rest, self.model) if rest else self.model
        groups = self.read(small) if rest else self.groups
        check(groups)
        if rest:
            self._become(rest, small)
            self.groups, self.plan = groups, plan

    def _without_constant_blocks(self, small: nn.Module) -> tuple[Plan, nn.Module]:
        """Remove the residual blocks whose branch has become constant: training would revive the rest of the branch."""
        vanished = Plan() if self._kwargs else bypass(small, self.example)
        if not vanished:
            return vanished, small
        smaller = apply(vanished, small)
        precise = apply(vanished, copied(small, isolated=True).double())  # the constants are rounded in `smaller`
        _require_rounding(self._change(small, smaller, precise), next(iter(vanished)).summary())
        return vanished, smaller

    def _change(self, model: nn.Module, small: nn.Module, double: nn.Module | None = None) -> Change:
        def found(
            network: nn.Module, precise: nn.Module | None = None
        ) -> Outputs:  # copies: no hook of the user's runs
            copy = copied(network, isolated=True)
            return outputs_in_both(copy, self.example, self.kwargs, precise, disposable=True)

        with undisturbed(model), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):  # TF32 rounds at 1e-3
            return change(found(model), found(small, double))

    def _become(self, plan: Plan, small: nn.Module) -> None:
        """Turn the network, its optimizer and copies into those of `small`, the result of `plan`; or change nothing."""
        made_anew = [path for edit in plan for path in edit.made_anew]
        copies = [apply(plan, each) for each in self.copies]
        contents = carried(plan, self.optimizer, self.model, small, part=True)
        paths = {id(parameter): path for path, parameter in small.named_parameters()}
        with ExitStack() as undo:
            become_(self.model, small, made_anew, undo)
            for each, new in zip(self.copies, copies, strict=True):
                become_(each, new, made_anew, undo)
            mine = dict(self.model.named_parameters(remove_duplicate=False))
            refill_(self.optimizer, contents, lambda p: mine[paths[id(p)]] if id(p) in paths else p, undo)
            checks.check_follows(small, self.model, self.example, self.kwargs)
            undo.pop_all()


def _record(epoch: int, before: ChannelGroups, after: ChannelGroups, removed: int, found: Change) -> ShrinkRecord:
    return ShrinkRecord(
        epoch=epoch,
        removed_groups=removed,
        macs_before=before.macs(),
        macs_after=after.macs(),
        params_before=before.params(),
        params_after=after.params(),
        max_rel_diff=found.relative,
        max_rel_diff_float64=found.relative_float64,
        tolerance=found.tolerance,
        seconds=0.0,
    )


def _moved(values: Tensor, old: ChannelGroups, new: ChannelGroups) -> Tensor:
    """Map values of the groups `old` to the groups `new`, of a network from which some blocks were removed."""
    result = values.new_zeros(len(new))
    known = {(slot.path, slot.dim): slot.groups for slot in old.slots}
    for slot in new.slots:
        before = known.get((slot.path, slot.dim))
        if before is not None:
            both = (before >= 0) & (slot.groups >= 0)
            result[slot.groups[both]] = values[before[both]]
    return result


def _require_rounding(found: Change, what: str) -> None:
    if not found.is_rounding:
        raise TrainingError(
            f"{what}: this changed the output by {found}: the trace is wrong; please report it with the model's code. "
            "The network and its optimizer are as they were before"
        )
