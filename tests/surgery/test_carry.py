"""carry_: removing zero groups in the middle of training and going on is the same as masking them and going on."""

import copy
import functools

import nets
import pytest
import torch

import prunus
from prunus.errors import EditError
from prunus.penalties.zeros import zero_
from prunus.surgery.removal import removal

STEPS = 4
OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.05),
    "sgd_momentum": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, weight_decay=1e-3),
    "sgd_nesterov": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, nesterov=True),
    "sgd_foreach": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, dampening=0.1, foreach=True),
    "adam": lambda p: torch.optim.Adam(p, lr=0.01),
    "adam_fused": lambda p: torch.optim.Adam(p, lr=0.01, fused=True),
    "adamw_amsgrad": lambda p: torch.optim.AdamW(p, lr=0.01, amsgrad=True),
    "adamw_fused_amsgrad": lambda p: torch.optim.AdamW(p, lr=0.01, amsgrad=True, fused=True),
    "adamw_foreach": lambda p: torch.optim.AdamW(p, lr=0.01, foreach=True),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.01, momentum=0.9, centered=True),
    "rmsprop_foreach": lambda p: torch.optim.RMSprop(p, lr=0.01, foreach=True),
    "adagrad": lambda p: torch.optim.Adagrad(p, lr=0.05),
    "adamax": lambda p: torch.optim.Adamax(p, lr=0.01),
    "nadam": lambda p: torch.optim.NAdam(p, lr=0.01),
}


class Masked:
    """A network whose chosen groups are held at zero after each step."""

    def __init__(self, model, groups, chosen):
        self.model, self.groups, self.chosen = model, groups, chosen
        self.hold()

    def hold(self):
        zero_(self.model, self.groups, self.chosen)


@functools.cache
def traced(name):
    return prunus.trace(nets.CASES[name].model(), nets.CASES[name].inputs())


def start(name, make, *, split=False):
    case = nets.CASES[name]
    model, inputs = case.model(), case.inputs()
    groups = traced(name)
    parameters = list(model.parameters())
    if split:
        parameters = [{"params": parameters[::2], "weight_decay": 0.1}, {"params": parameters[1::2], "lr": 0.02}]
    return model, inputs, groups, make(parameters)


def batch(inputs, step):
    generator = torch.Generator().manual_seed(step)
    return [torch.randn(tensor.shape, generator=generator, dtype=tensor.dtype) for tensor in inputs]


def copy_state(optimizer, twin):
    """Tensor by tensor: load_state_dict shares some and casts others."""
    for parameter, state in optimizer.state.items():
        twin.state[parameter] = copy.deepcopy(state)


def backward(model, inputs):
    loss = sum((tensor - 0.3).square().mean() for tensor in nets.outputs(model(*inputs)))
    loss.backward()
    return float(loss.detach())


def go_on(model, optimizer, inputs, step):
    optimizer.zero_grad()
    loss = backward(model, batch(inputs, step))
    optimizer.step()
    return loss


def half(groups):
    chosen = torch.zeros(len(groups), dtype=torch.bool)
    chosen[groups.exact.nonzero().flatten()[::2]] = True
    return chosen


@pytest.mark.parametrize("split", [False, True], ids=["one_group", "two_groups"])
@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS.keys())
def test_going_on_narrow_equals_going_on_masked(make, split):
    model, inputs, groups, optimizer = start("residual", make, split=split)
    for step in range(STEPS):
        go_on(model, optimizer, inputs, step)
    masked = Masked(model, groups, half(groups))
    plan = prunus.select(model, groups)
    small = prunus.apply(plan, model)
    twin = make([{**group, "params": list(group["params"])} for group in optimizer.param_groups])
    copy_state(optimizer, twin)
    carried = prunus.carry_(plan, twin, model, small)
    assert not carried.fresh and set(carried.kept) == {path for path, _ in small.named_parameters()}
    assert {id(p) for g in twin.param_groups for p in g["params"]} == {id(p) for p in small.parameters()}
    for step in range(STEPS, 2 * STEPS):
        expected = go_on(model, optimizer, inputs, step)
        masked.hold()
        assert go_on(small, twin, inputs, step) == pytest.approx(expected, rel=1e-12)
        cut = prunus.apply(plan, model)
        for (path, wide), narrow in zip(cut.named_parameters(), small.parameters(), strict=True):
            torch.testing.assert_close(narrow, wide, rtol=1e-12, atol=1e-12, msg=path)


@pytest.mark.parametrize(
    "name", ["grouped", "transposed_grouped", "depthwise_multiplier", "tied_layers", "flatten", "shared"]
)
def test_every_idiom_is_carried(name):
    model, inputs, groups, optimizer = start(name, OPTIMIZERS["adamw_amsgrad"])
    go_on(model, optimizer, inputs, 0)
    masked = Masked(model, groups, half(groups))
    plan = prunus.select(model, groups)
    assert plan.edits
    small = prunus.apply(plan, model)
    twin = OPTIMIZERS["adamw_amsgrad"](model.parameters())
    copy_state(optimizer, twin)
    prunus.carry_(plan, twin, model, small)
    for step in range(1, STEPS):
        expected = go_on(model, optimizer, inputs, step)
        masked.hold()
        assert go_on(small, twin, inputs, step) == pytest.approx(expected, rel=1e-12)


def test_gradients_gathered_half_way_are_carried():
    make = OPTIMIZERS["sgd_momentum"]
    model, inputs, groups, optimizer = start("residual", make)
    go_on(model, optimizer, inputs, 0)
    masked = Masked(model, groups, half(groups))
    optimizer.zero_grad()
    backward(model, batch(inputs, 1))
    plan = prunus.select(model, groups)
    small = prunus.apply(plan, model)
    twin = make(model.parameters())
    copy_state(optimizer, twin)
    prunus.carry_(plan, twin, model, small)
    for network, one in ((model, optimizer), (small, twin)):
        backward(network, batch(inputs, 2))
        one.step()
    masked.hold()
    cut = prunus.apply(plan, model)
    for (path, wide), narrow in zip(cut.named_parameters(), small.parameters(), strict=True):
        torch.testing.assert_close(narrow, wide, rtol=1e-12, atol=1e-12, msg=path)


def test_the_optimizer_still_saves_loads_and_schedules():
    make = OPTIMIZERS["adam"]
    model, inputs, groups, optimizer = start("residual", make)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1)
    go_on(model, optimizer, inputs, 0)
    Masked(model, groups, half(groups))
    plan = prunus.select(model, groups)
    small = prunus.apply(plan, model)
    prunus.carry_(plan, optimizer, model, small)
    scheduler.step()
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.001)
    fresh = make(small.parameters())
    fresh.load_state_dict(optimizer.state_dict())
    go_on(small, fresh, inputs, 1)


def test_parameters_that_an_edit_made_anew_start_afresh_in_their_group():
    from prunus.surgery import fuse

    case = nets.CASES["residual"]
    model, inputs = case.model(), case.inputs()
    branch, rest = list(model[1].parameters()), [*model[0].parameters(), *model[5].parameters()]
    optimizer = torch.optim.SGD([{"params": rest}, {"params": branch, "lr": 0.7}], lr=0.1, momentum=0.9)
    go_on(model, optimizer, inputs, 0)
    plan = fuse(model, inputs)
    small = prunus.apply(plan, model)
    carried = prunus.carry_(plan, optimizer, model, small)
    assert carried.fresh and all(path.startswith("1.") for path in carried.fresh)
    held = [{id(p) for p in group["params"]} for group in optimizer.param_groups]
    assert held[0] == {id(p) for p in (*small[0].parameters(), *small[5].parameters())}
    assert held[1] == {id(p) for p in small[1].parameters()}
    assert all("momentum_buffer" not in optimizer.state.get(p, {}) for p in small[1].parameters())
    go_on(small, optimizer, inputs, 1)


def test_refusals_leave_the_optimizer_as_it_was():
    model, inputs, groups, optimizer = start("residual", OPTIMIZERS["sgd_momentum"])
    go_on(model, optimizer, inputs, 0)
    Masked(model, groups, half(groups))
    plan = prunus.select(model, groups)
    small = prunus.apply(plan, model)
    held = [list(group["params"]) for group in optimizer.param_groups]
    gradients = [parameter.grad for parameter in model.parameters()]
    with pytest.raises(EditError, match="not the model's"):
        prunus.carry_(plan, optimizer, prunus.apply(prunus.Plan(), model), small)
    with pytest.raises(EditError, match="the plan leads to"):
        prunus.carry_(plan, optimizer, model, prunus.apply(prunus.Plan(), model))
    for before, group in zip(held, optimizer.param_groups, strict=True):
        assert all(a is b for a, b in zip(before, group["params"], strict=True))
    assert all(a is p.grad for a, p in zip(gradients, model.parameters(), strict=True))
    assert all("momentum_buffer" in optimizer.state[p] for p in model.parameters())


def two_layers():
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(4, 2))
    plan = prunus.expand(model, "0", 2)
    return model, plan, prunus.apply(plan, model)


def held(optimizer, model):
    paths = {id(parameter): path for path, parameter in model.named_parameters()}
    return [{paths[id(parameter)] for parameter in group["params"]} for group in optimizer.param_groups]


def test_what_replaces_an_untrained_layer_stays_outside():
    model, plan, small = two_layers()
    head, backbone = (torch.optim.SGD(model[index].parameters(), lr=0.1) for index in (3, 0))
    assert prunus.carry_(plan, head, model, small).fresh == ()
    prunus.carry_(plan, backbone, model, small)
    assert held(head, small) == [{"3.weight", "3.bias"}]
    assert held(backbone, small) == [{path for path, _ in small.named_parameters() if path.startswith("0.")}]


def test_fresh_biases_join_the_group_of_the_bias():
    model, plan, small = two_layers()
    kinds = [[p for p in model.parameters() if (p.dim() > 1) == wide] for wide in (True, False)]
    optimizer = torch.optim.SGD([{"params": kinds[0], "weight_decay": 0.1}, {"params": kinds[1]}], lr=0.1)
    prunus.carry_(plan, optimizer, model, small)
    weights, biases = held(optimizer, small)
    assert all(path.endswith(".weight") for path in weights) and all(path.endswith(".bias") for path in biases)
    assert weights | biases == {path for path, _ in small.named_parameters()}


def test_another_networks_parameters_are_not_taken():
    model, plan, _ = two_layers()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(EditError, match=r"3\.weight: the plan keeps it and the small model has none"):
        prunus.carry_(plan, optimizer, model, torch.nn.Sequential(torch.nn.Linear(3, 3)))
    assert held(optimizer, model) == [{path for path, _ in model.named_parameters()}]


def test_state_of_another_shape_is_refused():
    case = nets.CASES["plain"]
    model, inputs = case.model(torch.float32, 0), case.inputs(torch.float32, 0)
    optimizer = torch.optim.Adafactor(model.parameters())
    model(*inputs).square().sum().backward()
    optimizer.step()
    groups = prunus.trace(model, inputs)
    chosen = torch.zeros(len(groups), dtype=torch.bool)
    chosen[groups.exact.nonzero()[0]] = True
    plan = removal(groups, chosen)
    with pytest.raises(EditError, match="the optimizer keeps 'row_var' of shape"):
        prunus.carry_(plan, optimizer, model, prunus.apply(plan, model))
    assert held(optimizer, model) == [{path for path, _ in model.named_parameters()}]


def test_parameters_kept_elsewhere_are_refused():
    """Cut in the groups alone, L-BFGS would go on training the old network."""
    model, plan, small = two_layers()
    with pytest.raises(EditError, match=r"LBFGS keeps parameters in `_params` too.*create a new optimizer"):
        prunus.carry_(plan, torch.optim.LBFGS(model.parameters()), model, small)


class Wrapper(torch.optim.Optimizer):
    """An optimizer around another one, whose groups it shares."""

    def __init__(self, inner):
        super().__init__(inner.param_groups, {})
        self.inner, self.param_groups = inner, inner.param_groups

    def step(self):
        self.inner.step()


def test_an_optimizer_inside_is_asked_too():
    model, plan, small = two_layers()
    wrapper = Wrapper(torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9))
    prunus.carry_(plan, wrapper, model, small)  # nothing lies outside the groups yet
    assert held(wrapper.inner, small) == [{path for path, _ in small.named_parameters()}]
    small(torch.randn(1, 3, 3, 3)).sum().backward()
    wrapper.step()
    with pytest.raises(EditError, match="Wrapper keeps parameters in `inner` too"):
        prunus.carry_(prunus.Plan(), wrapper, small, prunus.apply(prunus.Plan(), small))


@pytest.mark.parametrize("prefix", ["", "module."])
def test_names_follow_their_parameters(prefix):
    model, plan, small = two_layers()
    optimizer = torch.optim.SGD([(prefix + path, parameter) for path, parameter in model.named_parameters()], lr=0.1)
    prunus.carry_(plan, optimizer, model, small)
    paths = {id(parameter): prefix + path for path, parameter in small.named_parameters()}
    (group,) = optimizer.param_groups
    assert group["param_names"] == [paths[id(parameter)] for parameter in group["params"]]
    assert set(group["param_names"]) == set(paths.values())
