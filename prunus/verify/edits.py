"""Apply edits one by one, and measure how much each changes the network's outputs, in float32 and float64."""

from torch import Tensor, nn

from prunus.errors import EditError
from prunus.interrupt import check
from prunus.modules.copying import copied, replace_
from prunus.records import EditRecord
from prunus.surgery import Edit, Plan, ReplaceModules, apply
from prunus.verify.rounding import change, outputs_in_both


def apply_measured(model: nn.Module, plan: Plan, inputs: Tensor) -> tuple[nn.Module, list[EditRecord]]:
    """Return `apply(plan, model)` and a record of each edit with the change of the outputs.

    Args:
        model: the network; it is moved to the CPU, since TF32 on a GPU rounds at 1e-3.
        plan: the edits.
        inputs: an example, [N, C, H, W].

    Raises:
        EditError: an exact edit changed the output by more than rounding, which would be a bug in Prunus.
    """
    if not plan:
        return model, []
    model, inputs = model.cpu(), inputs.cpu()
    own, double = copied(model, isolated=True), copied(model, isolated=True).double()
    before = outputs_in_both(own, (inputs,), double=double)
    records = list[EditRecord]()
    for edit in plan:
        check()
        own, double = _apply_in_place(edit, own), _apply_in_place(edit, double)
        after = outputs_in_both(own, (inputs,), double=double)
        found = change(before, after)
        if edit.exact and not found.is_rounding:
            raise EditError(
                f"{edit.summary()}: the edit is exact, and the output changed by {found}; please report it with the "
                "model's code"
            )
        records.append(record_of(edit, found.relative, found.relative_float64))
        before = after
    return apply(plan, model), records


def record_of(edit: Edit, single: float | None = None, double: float | None = None) -> EditRecord:
    """Return the record of an edit with the relative changes that it makes; None where shrink records hold them."""
    return EditRecord(
        edit=edit.edit_name,
        summary=edit.summary(),
        exact=edit.exact,
        max_rel_diff=single,
        max_rel_diff_float64=double,
    )


def _apply_in_place(edit: Edit, own: nn.Module) -> nn.Module:
    """Apply an edit to a network that is not used elsewhere; without a copy where the edit only replaces modules."""
    if not isinstance(edit, ReplaceModules):
        return apply(edit, own)
    for path, module in edit.successors(own).items():
        replace_(own, path, module)
    return own
