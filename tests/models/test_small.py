import pytest
import torch

from prunus.errors import RecipeError
from prunus.models.small import DepthwiseNet, PlainNet, ResidualNet

NETWORKS = [PlainNet, ResidualNet, DepthwiseNet]


@pytest.mark.parametrize("cls", NETWORKS)
@pytest.mark.parametrize("widths", [(8,), (8, 8), (8, 12, 16, 24)])
def test_scores_for_every_depth_and_image_size(cls, widths):
    network = cls(num_classes=5, widths=widths, in_channels=1)
    for size in (8, 15, 32):
        assert network(torch.randn(2, 1, size, size)).shape == (2, 5)


@pytest.mark.parametrize("cls", NETWORKS)
def test_export_reads_it(cls):
    network = cls(num_classes=5).eval()
    images = torch.randn(2, 3, 32, 32)
    program = torch.export.export(network, (images,))
    torch.testing.assert_close(program.module()(images), network(images))


@pytest.mark.parametrize("cls", NETWORKS)
def test_it_can_fit_a_few_images(cls):
    torch.manual_seed(0)
    network = cls(num_classes=2, widths=(8, 8))
    images, labels = torch.randn(8, 3, 8, 8), torch.tensor([0, 1] * 4)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.02)
    for _ in range(60):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(network(images), labels).backward()
        optimizer.step()
    assert (network.eval()(images).argmax(1) == labels).all()


@pytest.mark.parametrize("cls", NETWORKS)
@pytest.mark.parametrize("widths", [(), (8, 0)])
def test_widths_without_channels_are_refused(cls, widths):
    with pytest.raises(RecipeError, match="widths"):
        cls(num_classes=2, widths=widths)


def test_each_net_has_what_it_is_named_for():
    groups = {module.groups for module in DepthwiseNet(num_classes=2).modules() if isinstance(module, torch.nn.Conv2d)}
    assert groups == {1, 16, 32}
    skips = [type(module.skip).__name__ for module in ResidualNet(num_classes=2).modules() if hasattr(module, "skip")]
    assert skips == ["Identity", "Sequential", "Sequential"]
