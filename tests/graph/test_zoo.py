"""The law on real networks: a few in every run, the rest in benchmarks/zoo.py."""

import pytest
import torch

import prunus
from prunus.compat import torchvision

QUICK = {"squeezenet1_1": 2900, "shufflenet_v2_x0_5": 1900}  # network -> at least so many exact groups
SLOW = {
    "resnet50": 11_000,
    "swin_t": 17_000,
    "googlenet": 9_000,
    "densenet121": 10_000,
    "vit_b_16": 36_000,
}


@pytest.mark.filterwarnings("ignore")  # torchvision's own
@pytest.mark.parametrize("name", [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)])
def test_half_of_the_exact_channels_go(name):
    torch.manual_seed(0)
    model = torchvision.models.get_model(name, weights=None).eval()
    images = torch.randn(1, 3, 224, 224)
    groups = prunus.trace(model, images)
    assert int(groups.exact.sum()) >= (QUICK | SLOW)[name]
    record = prunus.check_removal(model, images)
    assert record.max_rel_diff <= 1e-5
    assert record.params_after < record.params_before


def test_coverage_of_a_network_can_be_acted_on():
    model = torchvision.models.squeezenet1_1(weights=None).eval()
    coverage = prunus.trace(model, torch.randn(1, 3, 64, 64)).coverage()
    rows = {row.layer: row for row in coverage.rows}
    first, last = rows["features.0"], rows["classifier.1"]
    assert (first.channels, first.exact, first.reason) == (64, 64, "")
    assert (last.exact, last.refused) == (0, 1000) and "output" in last.reason
    assert 0.9 < coverage.exact_params <= 1 and 0.9 < coverage.exact_macs <= 1
    assert "reaches the network's output 0" in str(coverage)
