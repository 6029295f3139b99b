"""A network in training: the module, its optimizer and the copies that follow it become narrower together."""

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
    """What a cut did.

    Attributes:
        record: for a reader.
        regrouped: takes a tensor with a value for each group before, [num_groups], to one for each group after.
    """

    record: ShrinkRecord
    regrouped: Callable[[Tensor], Tensor]


class NetworkInTraining:
    """A network, what trains it, and what is known of it.

    Attributes:
        model: the network; stays the same object.
        optimizer: trains it, and parameters of others where the network is part of a larger one.
        copies: networks of the same shapes that become narrower with it, such as an average of its weights.
        plan: all edits so far.
        groups: the channel groups as they are now; those of layers that nobody trains keep their channels.
        just_cut: there was no step since the last cut.
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
        """Return `groups` with none removable of which nothing is trained."""
        trained = torch.zeros(len(groups) + 1, dtype=torch.bool)
        for one in GroupSlices.of(self.model if model is None else model, groups).slices:
            if one.parameter.requires_grad:
                trained[one.groups] = True  # index -1, no group, is the last
        return dataclasses.replace(groups, exact=groups.exact & trained[:-1])

    def cut_zeros(self, keep: Sequence[str], when: str, *, epoch: int) -> CutResult | None:
        """Remove the groups that are zero, as `cut`; those of the layers `keep` stay (`kept_groups`)."""
        self.processes.sync_buffers_(self.model)
        zeros = zero_groups(self.model, self.groups) & ~kept_groups(self.groups, keep)
        return self.cut(spare_layers(self.groups, zeros), when, epoch=epoch)

    def cut(self, chosen: Tensor, when: str, *, epoch: int, exact: bool = True) -> CutResult | None:
        """Remove the groups `chosen`, bool [num_groups], from the network, its optimizer and its copies; None where
        there are none.

        Process 0 decides what goes; all must hold the same network afterwards.

        Args:
            chosen: by process 0.
            when: for messages.
            epoch: for the record.
            exact: the groups are zero, so the outputs may change by rounding alone.

        Raises:
            TrainingError: the outputs changed by more than rounding, which would be an error of Prunus; or the
                processes hold different networks (names the tensors). The network is then as it was.
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
        """Refuse an optimizer whose state cannot be cut; after its first step.

        Raises:
            TrainingError: names the state.
        """
        checks.check_state(self.model, self.optimizer)

    def check_gradients(self) -> None:
        """Refuse gradients that differ between processes in the first step after a cut.

        Raises:
            TrainingError: they do, since a wrapper has not been made anew.
        """
        if self.just_cut:
            self.processes.require_same_gradients(self.model)
            self.just_cut = False

    def replay(self, plan: Plan, check: Callable[[ChannelGroups], None] = lambda groups: None) -> None:
        """Do the edits of `plan`, which leads from the network as built; those that are done already stay.

        Args:
            plan: from the network as built.
            check: gets the groups of the narrow network before anything is changed, and raises where they do not fit.

        Raises:
            EditError: it does not fit the network, or other edits have been done.
        """
        done = self.plan.edits
        if plan.edits[: len(done)] != done:
            raise EditError("the network has been cut in another way already: build it anew, wide")
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
        """Let the network be `small`, which `plan` makes of it, and its optimizer and copies follow; or change
        nothing."""
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
    """Return the values of the groups `old` for the groups `new` of a network without some blocks."""
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
            f"{what}: this changed the output by {found}: the network was read wrongly; please report it with the "
            "model's code. The network and its optimizer are as they were before"
        )
