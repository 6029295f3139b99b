"""An operator of one's own: refused until it has a rule, right with one."""

import torch
from idioms import Call, check, images, reasons
from torch import Tensor, nn

from prunus.graph import rule


@torch.library.custom_op("prunus_tests::scale_channels", mutates_args=())
def scale_channels(image: Tensor, scale: Tensor) -> Tensor:
    return image * scale[None, :, None, None]


@scale_channels.register_fake
def _(image: Tensor, scale: Tensor) -> Tensor:
    return torch.empty_like(image)


@torch.library.custom_op("prunus_tests::unknown", mutates_args=())
def unknown(image: Tensor) -> Tensor:
    return image * 2


@unknown.register_fake
def _(image: Tensor) -> Tensor:
    return torch.empty_like(image)


class Scale(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.rand(channels))

    def forward(self, x: Tensor) -> Tensor:
        return torch.ops.prunus_tests.scale_channels(x, self.scale)


def test_an_unknown_operator_refuses_what_reaches_it_and_is_named():
    groups = check(Call(torch.ops.prunus_tests.unknown, nn.Conv2d(3, 8, 3), nn.Conv2d(8, 2, 3)), images(), exact=0)
    assert "unknown operator prunus_tests::unknown (prunus_tests::unknown, idioms.py:" in reasons(groups)


def test_a_rule_is_one_function():
    @rule("prunus_tests::scale_channels")
    def scale_channels_rule(call):
        image, scale = call.args
        call.join(image.axes.get(1), scale.axes.get(0))
        return image

    check(nn.Sequential(nn.Conv2d(3, 8, 3), Scale(8), nn.ReLU(), nn.Conv2d(8, 2, 3)), images(), exact=8)
