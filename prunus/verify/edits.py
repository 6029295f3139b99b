"""Edits applied one by one, each measured: by how much it changes the network's outputs, in float32 and float64."""

from torch import Tensor, nn

from prunus.errors import EditError
from prunus.modules.copying import copied, replace_
from prunus.records import EXACT, EditRecord
from prunus.surgery import Edit, Plan, ReplaceModules, apply
from prunus.verify.difference import is_rounding, largest_difference, outputs


def apply_measured(model: nn.Module, plan: Plan, inputs: Tensor) -> tuple[nn.Module, list[EditRecord]]:
    """Return `apply(plan, model)` and a record of each edit with the difference that it makes.

    Args:
        model: the network; it is moved to the CPU, since TF32 of a GPU rounds at 1e-3.
        plan: its edits.
        inputs: an example, [N, C, H, W].

    Raises:
        EditError: an exact edit changed the output by more than rounding, which would be an error of Prunus.
    """
    if not plan:
        return model, []
    model, inputs = model.cpu(), inputs.cpu()
    pair, examples = [copied(model, isolated=True), copied(model, isolated=True).double()], [inputs, inputs.double()]
    before = [outputs(each, (example,)) for each, example in zip(pair, examples, strict=True)]
    records = list[EditRecord]()
    for edit in plan:
        pair = [_apply_in_place(edit, each) for each in pair]
        after = [outputs(each, (example,)) for each, example in zip(pair, examples, strict=True)]
        single, double = (largest_difference(old, new)[1] for old, new in zip(before, after, strict=True))
        if edit.exact and not is_rounding(single, double):
            raise EditError(
                f"{edit.summary()}: the output changed by {single:.1e} in float32, {double:.1e} in float64, and the "
                f"edit is exact: at most {EXACT} is rounding; please report it with the model's code"
            )
        records.append(record_of(edit, single, double))
        before = after
    return apply(plan, model), records


def record_of(edit: Edit, single: float | None = None, double: float | None = None) -> EditRecord:
    """Return the record of an edit with the relative differences it makes; None where shrink records hold them."""
    return EditRecord(
        edit=edit.edit_name,
        summary=edit.summary(),
        exact=edit.exact,
        max_rel_diff=single,
        max_rel_diff_float64=double,
    )


def _apply_in_place(edit: Edit, own: nn.Module) -> nn.Module:
    """Apply an edit to a network that nobody else holds, without another copy where it only replaces modules."""
    if not isinstance(edit, ReplaceModules):
        return apply(edit, own)
    for path, module in edit.successors(own).items():
        replace_(own, path, module)
    return own
