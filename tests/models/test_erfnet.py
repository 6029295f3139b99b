import pytest
import torch
from torch import nn

from prunus.errors import RecipeError
from prunus.models.erfnet import Downsampler, ERFNet, NonBottleneck1d, Upsampler, scaled_widths


def num_parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_parameter_count_is_the_papers():
    head = num_parameters(ERFNet(num_classes=20, encoder_only=True).decoder)
    assert head == 128 * 20 + 20
    assert num_parameters(ERFNet(num_classes=20)) == 2_066_836 - head
    assert num_parameters(ERFNet(num_classes=20)) + head == 2_066_836


@pytest.mark.parametrize(
    ("module", "shape"),
    [
        (Downsampler(3, 16), (1, 16, 8, 12)),
        (NonBottleneck1d(3, dropout=0.1, dilation=4), (1, 3, 16, 24)),
        (Upsampler(3, 5), (1, 5, 32, 48)),
    ],
)
def test_block_shapes(module, shape):
    assert module(torch.randn(1, 3, 16, 24)).shape == shape


def test_resolutions_channels_and_dilations_follow_the_layer_table():
    network = ERFNet(num_classes=7).eval()
    shapes = []
    for block in (*network.encoder, *network.decoder):
        block.register_forward_hook(lambda _m, _i, output: shapes.append(tuple(output.shape[1:])))
    network(torch.zeros(1, 3, 32, 64))
    encoder = [(16, 16, 32)] + 6 * [(64, 8, 16)] + 9 * [(128, 4, 8)]
    assert shapes == encoder + 3 * [(64, 8, 16)] + 3 * [(16, 16, 32)] + [(7, 32, 64)]
    blocks = [block for block in network.modules() if isinstance(block, NonBottleneck1d)]
    dilations = [block.conv2_vertical.dilation[0] for block in blocks]
    assert dilations == 5 * [1] + 2 * [2, 4, 8, 16] + 4 * [1]
    rates = [block.dropout.p for block in blocks if isinstance(block.dropout, nn.Dropout2d)]
    assert rates == 5 * [0.03] + 8 * [0.3]


def test_480x360_is_accepted_and_odd_sizes_are_refused():
    network = ERFNet(num_classes=3, width_multiplier=0.25).eval()
    with torch.no_grad():
        assert network(torch.zeros(1, 3, 360, 480)).shape == (1, 3, 360, 480)
    with pytest.raises(RecipeError, match="multiples of 8; got 100 x 64"):
        network(torch.zeros(1, 3, 100, 64))


@pytest.mark.parametrize(
    ("multiplier", "widths"),
    [(1.0, (16, 64, 128)), (0.5, (8, 32, 64)), (0.25, (8, 16, 32)), (1.3, (24, 80, 168))],
)
def test_width_multiplier_rounds_to_multiples_of_eight(multiplier, widths):
    assert scaled_widths(multiplier) == widths


@pytest.mark.parametrize("multiplier", [0.1, 0.0, -1.0])
def test_too_small_a_multiplier_is_refused(multiplier):
    with pytest.raises(RecipeError, match=f"width_multiplier={multiplier}"):
        ERFNet(num_classes=3, width_multiplier=multiplier)


def test_encoder_stage_hands_its_encoder_to_the_full_network():
    settings = {"num_classes": 4, "width_multiplier": 0.25}
    first = ERFNet(**settings, encoder_only=True).eval()
    full = ERFNet(**settings).eval()
    images = torch.randn(2, 3, 32, 48)
    assert first(images).shape == (2, 4, 4, 6)
    full.encoder.load_state_dict(first.encoder.state_dict())
    torch.testing.assert_close(full.encoder(images), first.encoder(images), rtol=0, atol=0)


@pytest.mark.parametrize("encoder_only", [False, True])
def test_export_reads_it_with_a_dynamic_batch(encoder_only):
    network = ERFNet(num_classes=3, width_multiplier=0.25, encoder_only=encoder_only).eval()
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(network, (torch.randn(2, 3, 32, 64),), dynamic_shapes={"images": {0: batch}})
    images = torch.randn(3, 3, 32, 64)
    torch.testing.assert_close(program.module()(images), network(images))


def test_every_parameter_learns():
    network = ERFNet(num_classes=3, width_multiplier=0.25, dropout_late=0.0)
    network(torch.randn(2, 3, 32, 32)).square().mean().backward()
    silent = [name for name, parameter in network.named_parameters() if parameter.grad is None]
    assert silent == []
