"""The talk's networks: parameter counts against what was published or follows from it, and that all can be read."""

import pytest
import torch
from torch import nn

import prunus
from prunus.errors import RecipeError
from prunus.models.alexnet_like import AlexNetLike
from prunus.models.bnet_c import BNetC
from prunus.models.decn import Dec3, Dec8, SkippedPair
from prunus.models.resnet_1d import ResNet1d
from prunus.models.small_net import SmallNet


def count(model, kind=nn.Module, only="parameters"):
    names = ("weight",) if only == "weights" else ("weight", "bias")
    return sum(
        p.numel()
        for module in model.modules()
        if isinstance(module, kind)
        for name, p in module.named_parameters(recurse=False)
        if name in names
    )


def built(build):
    with torch.device("meta"):
        return build()


def test_dec8_has_the_published_number_of_parameters():
    """Table of the NIPS paper: 46.73 % of Dec8-768's parameters are 7.74 M, so it has 16.56 to 16.58 M."""
    model = built(lambda: Dec8(num_classes=1000, width=768))
    assert count(model, only="weights") == pytest.approx(7.74e6 / 0.4673, rel=2e-3)
    assert count(model) == pytest.approx(16.58e6, rel=1e-3)
    counts = [count(built(lambda width=width: Dec8(num_classes=1000, width=width))) for width in (512, 640, 768)]
    assert counts == sorted(counts) and counts[0] < 0.7 * counts[2]


def test_dec3_has_the_published_number_of_convolution_parameters():
    model = built(lambda: Dec3(num_classes=36))
    assert count(model, nn.Conv2d, "weights") == pytest.approx(3.70e6, rel=2e-3)


def test_resnet_50_star_has_the_published_number_of_parameters():
    assert count(built(lambda: ResNet1d(num_classes=1000))) == 21_784_616  # 21.78 M


def test_the_small_net_of_width_256_is_alexnet():
    assert count(built(lambda: AlexNetLike(num_classes=1000))) == 61_100_840
    narrow, wide = (built(lambda width=width: AlexNetLike(num_classes=1000, width=width)) for width in (128, 512))
    assert count(narrow, nn.Conv2d) == 23_296 + 307_392 + 663_936 + 442_496 + 147_584
    assert count(wide, nn.Conv2d) == 23_296 + 307_392 + 663_936 + 1_769_984 + 2_359_808


def test_small_net_by_hand():
    # conv 3->8->16->32; 32x32 -> 15 -> 6 -> 2 without padding, -> 16 -> 8 -> 4 with
    head = 64 * 10 + 10
    assert count(SmallNet(num_classes=10)) == (224 + 1168 + 4640) + 2 * 56 + (32 * 4 * 64 + 64) + head
    assert count(SmallNet(num_classes=10, kernel=7)) == (1184 + 6288 + 25120) + 2 * 56 + (32 * 16 * 64 + 64) + head


def test_bnet_c_is_vgg_b_without_its_first_two_linear_layers():
    model = built(lambda: BNetC(num_classes=1000))
    assert count(model, nn.Conv2d) == 9_404_992  # VGG-13's features
    assert count(model, nn.Linear) == 512 * 49 * 1000 + 1000


@pytest.mark.parametrize(("skips", "depth"), [((0, 0), 0), ((1, 0), 1), ((2, 0), 2), ((2, 1), 3), ((2, 2), 4)])
def test_skipped_pairs_stand_behind_the_seventh_and_the_eighth(skips, depth):
    model = built(lambda: Dec8(num_classes=10, skips=skips))
    plain = built(lambda: Dec8(num_classes=10))
    assert sum(isinstance(module, SkippedPair) for module in model.modules()) == depth
    assert count(model) - count(plain) == depth * 2 * (3 * 512 * 512 + 512)


SMALL = {
    "Dec8": (lambda: Dec8(num_classes=5, width=6), (3, 16, 16)),
    "Dec8 with skips": (lambda: Dec8(num_classes=5, width=6, skips=(1, 1)), (3, 16, 16)),
    "Dec3": (lambda: Dec3(num_classes=5, width=8, stem=((4, 6), (6, 8))), (1, 16, 16)),
    "ResNet1d": (lambda: ResNet1d(num_classes=5, blocks=(1, 2), width=4), (3, 32, 32)),
    "SmallNet k3": (lambda: SmallNet(num_classes=5), (3, 32, 32)),
    "SmallNet k7": (lambda: SmallNet(num_classes=5, kernel=7), (3, 32, 32)),
    "AlexNetLike": (lambda: AlexNetLike(num_classes=5, width=8, hidden=(10,)), (3, 64, 64)),
    "BNetC": (lambda: BNetC(num_classes=5, width_multiplier=0.1, grid=2), (3, 32, 32)),
}


@pytest.mark.parametrize("name", SMALL)
def test_the_law_of_removal_holds(name):
    build, shape = SMALL[name]
    torch.manual_seed(0)
    model = build().eval()
    record = prunus.check_removal(model, torch.randn(2, *shape), fraction=0.5, seed=0)
    assert record.removed > 0
    assert record.max_rel_diff <= 1e-5
    assert record.params_after < record.params_before


def test_a_skipped_pair_whose_units_are_zero_is_bypassed():
    torch.manual_seed(0)
    model = Dec8(num_classes=5, width=6, skips=(1, 0)).eval()
    images = torch.randn(2, 3, 16, 16)
    pair = next(module for module in model.modules() if isinstance(module, SkippedPair))
    with torch.no_grad():
        for parameter in pair.pair.parameters():
            parameter.zero_()
    state = {name: value for name, value in model.state_dict().items() if not name.startswith("features.10.")}
    shallow = Dec8(num_classes=5, width=6)
    keys = dict(zip(shallow.state_dict(), state.values(), strict=True))
    shallow.load_state_dict(keys)
    torch.testing.assert_close(model(images), shallow.eval()(images))


@pytest.mark.parametrize(
    ("build", "word"),
    [
        (lambda: Dec8(num_classes=2, width=0), "width"),
        (lambda: Dec3(num_classes=2, stem=((1, 2),)), "stem"),
        (lambda: ResNet1d(num_classes=2, blocks=()), "block"),
        (lambda: SmallNet(num_classes=2, kernel=5), "kernel"),
        (lambda: SmallNet(num_classes=2, image_size=8), "image_size"),
        (lambda: AlexNetLike(num_classes=2, width=0), "width"),
        (lambda: BNetC(num_classes=2, grid=0), "grid"),
    ],
)
def test_settings_that_give_no_network_are_refused(build, word):
    with pytest.raises(RecipeError, match=word):
        build()
