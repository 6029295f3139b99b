import nets
import pytest
import torch
from torch import nn

import prunus
from prunus.errors import BudgetError, TraceError
from prunus.records import RemovalRecord


@pytest.mark.parametrize("name", ["residual", "c2f", "auxiliary_head", "dictionary", "two_inputs", "sigmoid"])
def test_the_law_on_a_network(name):
    case = nets.CASES[name]
    model, inputs = case.model(torch.float32), case.inputs(torch.float32)
    before = nets.state(model)
    record = prunus.check_removal(model, inputs, fraction=0.5, seed=3)
    nets.assert_same_state(before, nets.state(model))
    assert record.max_rel_diff <= 1e-5
    assert record.removed >= case.exact // 2
    assert (record.params_before, record.macs_before) == (case.params, case.macs)
    assert record.params_after < case.params and record.macs_after <= case.macs
    assert record == prunus.check_removal(model, inputs, fraction=0.5, seed=3)


def test_nothing_removable_raises_nothing():
    record = prunus.check_removal(nn.Sequential(nn.Conv2d(3, 4, 1)), torch.zeros(1, 3, 4, 4))
    assert (record.removed, record.refused, record.max_rel_diff) == (0, 7, 0.0)
    assert record.params_after == record.params_before == 16


def test_zeros_that_the_model_had_before_go_too():
    model = nets.CASES["plain"].model(torch.float32)
    with torch.no_grad():
        model[0].weight[2] = 0
        model[0].bias[2] = 0
    record = prunus.check_removal(model, nets.CASES["plain"].inputs(torch.float32), fraction=0.0)
    assert isinstance(record, RemovalRecord) and record.removed == 1


def test_keyword_inputs():
    class Keyword(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nets.CASES["plain"].build()

        def forward(self, x, *, scale):
            return self.net(x) * scale

    inputs = nets.CASES["plain"].inputs(torch.float32)
    assert prunus.check_removal(Keyword(), inputs, kwargs={"scale": torch.ones(1)}).removed > 0


def test_a_model_that_writes_its_precision_down():
    class Half(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nets.CASES["plain"].build()

        def forward(self, x):
            return self.net(x.float())

    assert prunus.check_removal(Half(), nets.CASES["plain"].inputs(torch.float32)).max_rel_diff <= 1e-5


def test_a_fraction_that_is_none_is_refused():
    with pytest.raises(BudgetError, match="fraction"):
        prunus.check_removal(nn.Linear(2, 2), torch.zeros(1, 2), fraction=1.5)
    with pytest.raises(TraceError):
        prunus.check_removal(nn.Linear(2, 2), torch.zeros(1, 3))
