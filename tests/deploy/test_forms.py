"""The form in which a layer is deployed: each form is timed in its place, the fastest stays, the function too."""

import pytest
import torch
from torch import nn

import prunus
from prunus.deploy import LatencyMeter
from prunus.deploy.forms import DENSE, choose_forms, has_forms
from prunus.surgery.factors import Factors

IMAGES = torch.linspace(-1, 1, 3 * 16 * 16).reshape(1, 3, 16, 16)


def build():
    """Return a network with one layer that a pair replaces, one pair with a ReLU between, and an expanded layer."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(),
        nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 4, 1),
    ).eval()  # fmt: skip
    for plan in (
        lambda m: prunus.factorize(m, "2", rank=4),
        lambda m: prunus.decompose(m, "4", rank=8, nonlinear=True),
        lambda m: prunus.expand(m, "6", rate=2),
    ):
        model = prunus.apply(plan(model), model)
    return model.eval()


def operators(model):
    return sum(isinstance(module, nn.Conv2d) for module in model.modules())


@pytest.mark.parametrize(("price", "chosen"), [(1.0, DENSE), (-1.0, "as trained")])
def test_the_fastest_form_of_each_layer_stays(price, chosen):
    model = build()
    before, asked = operators(model), []

    def meter(network):  # a target on which each operator costs so much
        asked.append(operators(network))
        return 100 + price * operators(network)

    found, choices = choose_forms(model, IMAGES, meter)
    assert operators(model) == before  # it is not changed
    assert [choice.layer for choice in choices] == ["2", "6"]  # a ReLU is between the layers of 4
    assert all((choice.chosen == DENSE) == (chosen == DENSE) for choice in choices)
    assert all(list(choice.milliseconds)[1] == DENSE and choice.chosen in choice.milliseconds for choice in choices)
    assert all(min(choice.milliseconds, key=choice.milliseconds.get) == choice.chosen for choice in choices)
    left = [path for path, module in found.named_modules() if isinstance(module, Factors)]
    assert left == (["4"] if chosen == DENSE else ["2", "4", "6"])
    assert max(choice.max_rel_diff for choice in choices) < 1e-5
    assert torch.allclose(found(IMAGES), model(IMAGES), atol=1e-5)
    assert len(asked) == 1 + len(choices)  # each form once


def test_a_form_is_timed_in_the_network_that_the_choices_before_have_led_to():
    seen = []

    def meter(network):
        seen.append([isinstance(network[place], Factors) for place in (2, 6)])
        return float(sum(seen[-1]))

    choose_forms(build(), IMAGES, meter)
    assert seen == [[True, True], [False, True], [False, False]]


def test_forms_are_timed_on_a_real_backend():
    model = build()
    found, choices = choose_forms(model, IMAGES, LatencyMeter(model, IMAGES))
    assert all(value > 0 for choice in choices for value in choice.milliseconds.values())
    dense = [choice.layer for choice in choices if choice.chosen == DENSE]
    assert all(not isinstance(found.get_submodule(layer), Factors) for layer in dense)


def test_a_network_without_factors_has_one_form():
    plain = nn.Sequential(nn.Conv2d(3, 4, 3))
    assert has_forms(build()) and not has_forms(plain)
    assert choose_forms(plain, IMAGES, lambda network: pytest.fail("timed")) == (plain, [])
