"""Networks that a recipe names by a function, and what is said where they cannot be built."""

import pytest
import torch
from torch import nn

import prunus.recipe
from prunus.errors import RecipeError
from prunus.models.factory import build
from prunus.pipeline import Recipe


def blocks(*, num_classes, depth=1):
    """Some convolutions."""
    if depth < 1:
        raise ValueError("depth must be at least 1")
    return nn.Sequential(*(nn.Conv2d(3, 3, 1) for _ in range(depth - 1)), nn.Conv2d(3, num_classes, 1))


def no_network(num_classes):
    """Something else."""
    return num_classes


def loaded(folder, function, arguments="{}"):
    path = folder / "recipe.yaml"
    path.write_text(
        "name: own\ndata: prunus.data.StreetData\n"
        "model:\n  class_path: prunus.models.factory.Function\n"
        f"  init_args: {{function: {function}, arguments: {arguments}}}\n"
    )
    return prunus.recipe.load(Recipe, path)


def test_a_function_builds_the_network_afresh_each_time(tmp_path):
    recipe = loaded(tmp_path, f"{__name__}.blocks", "{depth: 2}")
    first, second = build(recipe.model, 5), build(recipe.model, 5)
    assert type(first) is nn.Sequential and len(first) == 2 and first[1].out_channels == 5
    assert not torch.equal(first[0].weight, second[0].weight)
    again = prunus.recipe.build(Recipe, prunus.recipe.describe(recipe))
    assert len(build(again.model, 5)) == 2


def test_networks_of_torchvision_and_timm(tmp_path):
    vision = build(loaded(tmp_path, "torchvision.models.shufflenet_v2_x0_5").model, 7)
    assert type(vision).__name__ == "ShuffleNetV2" and vision.fc.out_features == 7
    timm = build(loaded(tmp_path, "timm.create_model", "{model_name: test_resnet}").model, 7)
    assert timm.num_classes == 7


@pytest.mark.parametrize(
    ("function", "arguments", "message"),
    [
        ("torchvision.models.resnt", "{}", "not a dotted path of a function.*resnt"),
        ("nowhere.at_all", "{}", "not a dotted path of a function"),
        ("blocks", "{}", "not a dotted path of a function"),
        ("math.pi", "{}", "is a float, not a function"),
        (f"{__name__}.no_network", "{}", "the model is a int, not an nn.Module"),
        (f"{__name__}.blocks", "{deep: 2}", "cannot be built for 3 classes: TypeError: .*'deep'"),
        (f"{__name__}.blocks", "{depth: 0}", "cannot be built for 3 classes: ValueError: depth must be"),
    ],
)
def test_what_cannot_be_built_says_why(tmp_path, function, arguments, message):
    recipe = loaded(tmp_path, function, arguments)
    with pytest.raises(RecipeError, match=message):
        build(recipe.model, 3)


@pytest.mark.parametrize(
    ("class_path", "message"),
    [
        ("torchvision.models.resnet18", r"`model.class_path` names no class.*prunus\.models\.factory\.Function"),
        ("torch.nn.Linear", "names Linear, which takes no `num_classes`"),
    ],
)
def test_a_class_path_that_is_no_factory_is_refused(tmp_path, class_path, message):
    path = tmp_path / "recipe.yaml"
    path.write_text(f"name: own\ndata: prunus.data.StreetData\nmodel: {class_path}\n")
    with pytest.raises(RecipeError, match=message):
        prunus.recipe.load(Recipe, path)
