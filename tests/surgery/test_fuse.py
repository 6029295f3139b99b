"""FuseBatchNorm against the two layers it replaces, and where it keeps its hands off."""

import copy

import nets
import pytest
import torch
from torch import nn

import prunus
from prunus.errors import EditError
from prunus.surgery import Plan, fuse
from prunus.surgery.fuse import FuseBatchNorm


def randomised(*layers):
    """Layers in a row, their statistics and factors far from the fresh ones."""
    torch.manual_seed(0)
    model = nn.Sequential(*layers)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.running_mean.normal_()
            module.running_var.uniform_(0.2, 3)
            if module.affine:
                nn.init.uniform_(module.weight, -2, 2)
                nn.init.normal_(module.bias)
    return model.eval()


PAIRS = {
    "conv": ((nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)), (2, 3, 9, 7)),
    "no bias": ((nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8)), (2, 3, 9, 7)),
    "not affine": ((nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8, affine=False)), (2, 3, 9, 7)),
    "groups": ((nn.Conv2d(4, 8, 3, groups=4), nn.BatchNorm2d(8, eps=1e-3)), (2, 4, 9, 7)),
    "strided, dilated": ((nn.Conv2d(3, 8, 3, stride=2, dilation=2), nn.BatchNorm2d(8)), (2, 3, 9, 7)),
    "reflected": ((nn.Conv2d(3, 8, 3, padding=1, padding_mode="reflect"), nn.BatchNorm2d(8)), (2, 3, 9, 7)),
    "transposed": (
        (nn.ConvTranspose2d(3, 8, 3, stride=2, padding=1, output_padding=1), nn.BatchNorm2d(8)),
        (2, 3, 5, 4),
    ),
    "transposed groups": (
        (nn.ConvTranspose2d(6, 4, 2, stride=2, groups=2, bias=False), nn.BatchNorm2d(4)),
        (2, 6, 5, 4),
    ),
    "synchronised": ((nn.Conv2d(3, 8, 3), nn.SyncBatchNorm(8)), (2, 3, 9, 7)),
    "1d": ((nn.Conv1d(3, 8, 3), nn.BatchNorm1d(8)), (2, 3, 9)),
    "3d": ((nn.Conv3d(3, 4, 2), nn.BatchNorm3d(4)), (2, 3, 4, 4, 4)),
}


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
@pytest.mark.parametrize("name", PAIRS)
def test_fused_is_equal_up_to_rounding(name, dtype, tolerance):
    layers, shape = PAIRS[name]
    model = randomised(*copy.deepcopy(layers)).to(dtype)
    inputs = torch.randn(shape, dtype=dtype)
    plan = fuse(model, inputs)
    assert [(edit.conv, edit.norm) for edit in plan] == [("0", "1")]
    fused = prunus.apply(plan, model)
    assert isinstance(fused[1], nn.Identity)
    assert fused[0].bias is not None and fused[0].weight.dtype == dtype
    with torch.no_grad():
        expected, output = model(inputs), fused(inputs)
    assert float((output - expected).abs().max() / expected.abs().max()) < tolerance


def test_weights_by_hand():
    conv, norm = nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1, eps=0.0)
    for tensor, value in (
        (conv.weight, 3.0), (conv.bias, 1.0), (norm.weight, 2.0), (norm.bias, 5.0), (norm.running_mean, 7.0),
        (norm.running_var, 4.0),
    ):  # fmt: skip
        nn.init.constant_(tensor, value)
    fused = prunus.apply(FuseBatchNorm(conv="0", norm="1"), nn.Sequential(conv, norm).eval())
    assert fused[0].weight.item() == 3.0  # 2 / sqrt(4) * 3
    assert fused[0].bias.item() == -1.0  # 2 / sqrt(4) * (1 - 7) + 5


class TwoReaders(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

    def forward(self, images):
        features = self.conv(images)
        return self.norm(features) + features


class CalledTwice(TwoReaders):
    def forward(self, images):
        return self.norm(self.conv(torch.relu(self.conv(images))))


class NormTwice(TwoReaders):
    def forward(self, images):
        return self.norm(torch.relu(self.norm(self.conv(images))))


class Between(TwoReaders):
    def forward(self, images):
        return self.norm(torch.relu(self.conv(images)))


@pytest.mark.parametrize("kind", [TwoReaders, CalledTwice, NormTwice, Between])
def test_not_fused_where_something_else_reads_in_between(kind):
    assert len(fuse(kind().eval(), torch.randn(1, 3, 4, 4))) == 0


def test_a_norm_without_statistics_is_not_folded():
    layers = (nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8, track_running_stats=False))
    with pytest.raises(EditError, match="keeps no running statistics"):
        prunus.apply(FuseBatchNorm(conv="0", norm="1"), nn.Sequential(*layers))


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (FuseBatchNorm(conv="0", norm="9"), "has no such module"),
        (FuseBatchNorm(conv="1", norm="0"), "is a BatchNorm2d, not one of"),
        (FuseBatchNorm(conv="2", norm="1"), "makes 4 channels, 1 normalises 8"),
    ],
)
def test_what_does_not_fit_is_refused_and_the_model_kept(edit, message):
    model = randomised(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 4, 1))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(EditError, match=message):
        prunus.apply(edit, model)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_the_plan_goes_through_json_and_the_original_stays():
    model = randomised(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 1), nn.BatchNorm2d(4))
    inputs = torch.randn(1, 3, 6, 6)
    before = model(inputs)
    plan = fuse(model, inputs)
    assert Plan.from_json(plan.to_json()) == plan
    assert len(plan) == 2
    assert isinstance(prunus.apply(plan, model)[4], nn.Identity)
    assert torch.equal(model(inputs), before)
    assert len(fuse(prunus.apply(plan, model), inputs)) == 0


def test_a_plan_prints_a_line_for_each_edit():
    plan = prunus.fuse(nets.CASES["residual"].model(), nets.CASES["residual"].inputs())
    assert plan and str(plan).splitlines() == [edit.summary() for edit in plan]
    assert str(prunus.Plan()) == "nothing to change"
