import abc
import enum
import functools
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

import pytest
import yaml
from torch import nn

from prunus import recipe
from prunus.errors import RecipeError

HERE = __name__  # the dotted path under which recipes find the classes of this file


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Data(abc.ABC):
    @abc.abstractmethod
    def length(self) -> int: ...


@dataclass(frozen=True, kw_only=True)
class Scenes(Data):
    size: tuple[int, int] = (128, 256)
    seed: int = 0

    def __post_init__(self):
        if self.seed < 0:
            raise RecipeError(f"seed must not be negative, and is {self.seed}")
        if self.seed > 99:
            raise ValueError("seed too large")

    def length(self) -> int:
        return 3


@dataclass(frozen=True, kw_only=True)
class Folder(Data):
    root: Path
    colour: Colour = Colour.RED

    def length(self) -> int:
        return 5


class Penalty(abc.ABC):
    @abc.abstractmethod
    def value(self) -> float: ...


@dataclass(frozen=True, kw_only=True)
class Lasso(Penalty):
    strength: float = 1e-4

    def value(self) -> float:
        return self.strength


class Network(nn.Module):
    def __init__(self, *, num_classes: int, width: float = 1.0) -> None:
        super().__init__()
        self.head = nn.Linear(int(4 * width), num_classes)


class Anything(nn.Module):
    def __init__(self, *, num_classes: int, **settings: int) -> None:
        super().__init__()
        self.settings = settings


class Bare(nn.Module):
    def __init__(self, num_classes, width=8, kinds=()):
        super().__init__()
        self.given = (num_classes, width, kinds)


class Factory(Protocol):
    def __call__(self, *, num_classes: int) -> nn.Module: ...


@dataclass(frozen=True, kw_only=True)
class Train:
    epochs: int = 10
    learning_rate: float = 5e-4
    ema_decay: float | None = None
    precision: Literal["float32", "bfloat16"] = "float32"
    milestones: tuple[int, ...] = ()

    def __post_init__(self):
        if self.epochs == 0 or 0 in self.milestones:
            raise RecipeError(f"epochs is {self.epochs}, milestones {list(self.milestones)}")
        if not 0 < self.learning_rate < 1:
            raise RecipeError(f"learning_rate is {self.learning_rate}")


BOUND = {"one_of": "bounds"}


@dataclass(frozen=True, kw_only=True)
class Limit:
    macs: float | None = field(default=None, metadata=BOUND)
    params: float | None = field(default=None, metadata=BOUND)
    multiple_of: int = 1

    def __post_init__(self):
        if self.macs is None and self.params is None:
            raise RecipeError("bounds nothing")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    data: Data
    model: Factory
    name: str = "run"
    train: Train = field(default_factory=Train)
    penalty: Penalty | None = None
    extras: tuple[Penalty, ...] = ()


MINIMAL = f"""\
data: {HERE}.Scenes
model:
  class_path: {HERE}.Network
  init_args:
    width: 0.5
"""


@pytest.fixture
def written(tmp_path):
    def write(text):
        path = tmp_path / "recipe.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_defaults_fill_what_is_not_written(written):
    loaded = recipe.load(Recipe, written(MINIMAL))
    assert loaded.data == Scenes()
    assert loaded.train == Train()
    assert (loaded.name, loaded.penalty, loaded.extras) == ("run", None, ())


def test_a_model_is_built_as_often_as_asked_and_each_time_afresh(written):
    loaded = recipe.load(Recipe, written(MINIMAL))
    first, second = loaded.model(num_classes=7), loaded.model(num_classes=7)
    assert first.head.weight.shape == (7, 2)
    assert not first.head.weight.equal(second.head.weight)


def test_everything_that_can_be_written(written):
    text = f"""\
data:
  class_path: {HERE}.Folder
  init_args: {{root: some/where, colour: BLUE}}
model: {HERE}.Network
name: full
train: {{epochs: 3, learning_rate: 1e-3, ema_decay: 0.9, precision: bfloat16, milestones: [1, 2]}}
penalty: {{class_path: {HERE}.Lasso, init_args: {{strength: 2E-3}}}}
extras:
- class_path: {HERE}.Lasso
- {HERE}.Lasso
"""
    loaded = recipe.load(Recipe, written(text))
    assert loaded.data == Folder(root=Path("some/where"), colour=Colour.BLUE)
    assert loaded.train == Train(epochs=3, learning_rate=1e-3, ema_decay=0.9, precision="bfloat16", milestones=(1, 2))
    assert loaded.penalty == Lasso(strength=2e-3)
    assert loaded.extras == (Lasso(), Lasso())


def test_overrides(written):
    overrides = (
        "train.epochs=3",
        "train.learning_rate=1e-2",
        "train.milestones=[4, 5]",
        "train.ema_decay=",
        "data.seed=7",
        "model.width=2",
        "penalty.class_path=" + HERE + ".Lasso",
        "penalty.strength=1",
        "name=a=b",
    )
    loaded = recipe.load(Recipe, written(MINIMAL), overrides)
    assert loaded.train == Train(epochs=3, learning_rate=1e-2, milestones=(4, 5))
    assert loaded.data == Scenes(seed=7)
    assert loaded.model(num_classes=1).head.in_features == 8
    assert loaded.penalty == Lasso(strength=1.0)
    assert loaded.name == "a=b"


def test_another_class_path_drops_the_former_classs_settings(written):
    path = written(MINIMAL.replace(f"{HERE}.Scenes", f"{{class_path: {HERE}.Scenes, init_args: {{seed: 3}}}}"))
    loaded = recipe.load(Recipe, path, [f"data.class_path={HERE}.Folder", "data.root=there"])
    assert loaded.data == Folder(root=Path("there"))
    assert recipe.load(Recipe, path, [f"data.class_path={HERE}.Scenes"]).data == Scenes(seed=3)


def test_an_override_of_an_alias_changes_one_place(written):
    text = MINIMAL + f"penalty: &lasso {{class_path: {HERE}.Lasso, init_args: {{strength: 1.0}}}}\nextras: [*lasso]\n"
    loaded = recipe.load(Recipe, written(text), ["penalty.strength=2"])
    assert (loaded.penalty, loaded.extras) == (Lasso(strength=2.0), (Lasso(strength=1.0),))


@dataclass(frozen=True, kw_only=True)
class Complete:
    data: Data = field(default_factory=lambda: Scenes(seed=5))
    penalty: Penalty | None = Lasso(strength=0.5)
    train: Train = Train(epochs=4)


def test_a_default_component_takes_overrides_of_its_settings(written):
    empty = written("")
    assert recipe.load(Complete, empty) == Complete()
    loaded = recipe.load(Complete, empty, ["data.size=[4,8]", "penalty.strength=2", "train.ema_decay=0.5"])
    assert loaded.data == Scenes(seed=5, size=(4, 8))
    assert loaded.penalty == Lasso(strength=2.0)
    assert loaded.train == Train(epochs=4, ema_decay=0.5)
    assert recipe.load(Complete, empty, ["penalty="]).penalty is None
    assert recipe.load(Complete, written("data: {init_args: {seed: 6}}")).data == Scenes(seed=6)
    with pytest.raises(RecipeError, match=r"override `data\.sead=1`: .*did you mean `seed`"):
        recipe.load(Complete, written(""), ["data.sead=1"])
    with pytest.raises(RecipeError, match=r"override `data\.sead=1`: .*did you mean `seed`"):
        recipe.load(Complete, written("data: {init_args: {seed: 6}}"), ["data.sead=1"])
    with pytest.raises(RecipeError, match=r"`data\.init_args` must be a mapping of Scenes's settings, not 3"):
        recipe.load(Complete, written("data: {init_args: 3}"))
    with pytest.raises(RecipeError, match=r"line 1: `data\.seed` is not a known key"):
        recipe.load(Complete, written("data: {init_args: {seed: 6}, seed: 7}"))


@dataclass(frozen=True, kw_only=True)
class Limited:
    limit: Limit = Limit(macs=0.4, multiple_of=4)


def test_a_bound_takes_the_place_of_the_defaults_bounds(written):
    assert recipe.load(Limited, written("")).limit == Limit(macs=0.4, multiple_of=4)
    assert recipe.load(Limited, written("limit: {params: 0.5}")).limit == Limit(params=0.5, multiple_of=4)
    assert recipe.load(Limited, written(""), ["limit.params=0.5"]).limit == Limit(params=0.5, multiple_of=4)
    both = recipe.load(Limited, written("limit: {macs: 0.3}"), ["limit.params=0.5"])  # both are the user's
    assert both.limit == Limit(macs=0.3, params=0.5, multiple_of=4)


def test_dump_round_trips(written):
    path = written(MINIMAL)
    values = recipe.resolve(Recipe, path, ["train.epochs=3", "train.learning_rate=1e-7", f"penalty={HERE}.Lasso"])
    assert values["train"]["epochs"] == 3
    assert values["train"]["ema_decay"] is None
    assert values["model"] == {"class_path": f"{HERE}.Network", "init_args": {"width": 0.5}}
    text = recipe.dump(values)
    again = written(text)
    assert recipe.resolve(Recipe, again) == values
    assert recipe.dump(recipe.resolve(Recipe, again)) == text
    assert yaml.safe_load(text)["data"]["init_args"] == {"size": [128, 256], "seed": 0}
    first, second = recipe.build(Recipe, values), recipe.load(Recipe, again)
    assert (first.data, first.train, first.penalty) == (second.data, second.train, second.penalty)
    assert first.train.learning_rate == 1e-7


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("trian: {}", "line 6: `trian` is not a known key; did you mean `train`?"),
        ("train:\n  epohs: 3", "line 7: `train.epohs` is not a known key; did you mean `epochs`?"),
        ("train: {zzz: 3}", "`train.zzz` is not a known key; known: ema_decay, epochs, learning_rate, "),
        (
            "penalty:\n  class_path: HERE.Lasso\n  init_args:\n    strenght: 1",
            "line 9: `penalty.init_args.strenght` is ",
        ),
        (
            "extras:\n- HERE.Lasso\n- class_path: HERE.Lasso\n  init_arg: {}",
            "`extras[1].init_arg` is not a known key; did",
        ),
        (
            "extras:\n- {class_path: HERE.Lasso, init_args: {s: 1}}",
            "line 7: `extras[0].init_args.s` is not a known",
        ),
        ("1: 2", "`1` is not a known key"),
    ],
)
def test_unknown_keys_are_refused_with_line_path_and_nearest(written, text, message):
    with pytest.raises(RecipeError) as caught:
        recipe.resolve(Recipe, written(MINIMAL + text.replace("HERE", HERE)))
    assert message in str(caught.value)
    assert "recipe.yaml" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train: {epochs: three}", "line 6: `train.epochs` must be int, not 'three'"),
        ("train: {epochs: 3.0}", "`train.epochs` must be int, not 3.0"),
        ("train: {epochs: true}", "`train.epochs` must be int, not True"),
        ("train: {epochs: [3]}", "`train.epochs` must be int, not [3]"),
        ("train: {epochs: }", "`train.epochs` must be int, not None"),
        ("train: {ema_decay: x}", "`train.ema_decay` must be float | None, not 'x'"),
        ("train: {precision: half}", "`train.precision` must be one of 'float32', 'bfloat16', not 'half'"),
        ("train: {milestones: [1, x]}", "`train.milestones` must be tuple[int, ...], not [1, 'x']"),
        ("train: 3", "`train` must be a mapping of Train's keys, not 3"),
        ("train: ", "`train` must be a mapping of Train's keys, not None"),
        ("train:\n- epochs", "`train` must be a mapping of Train's keys, not ['epochs']"),
        ("name: [a]", "`name` must be str, not ['a']"),
        ("penalty: {strength: 1}", "`penalty` must name a class by its dotted path"),
        (
            "penalty: {class_path: HERE.Lasso, init_args: 3}",
            "`penalty.init_args` must be a mapping of Lasso's",
        ),
        (
            "penalty: {class_path: HERE.Lasso, init_args: {strength: x}}",
            "`penalty.init_args.strength` must be float",
        ),
        (
            "penalty: {class_path: HERE.Scenes}",
            "`penalty.class_path` must name a Penalty, and HERE.Scenes is not one",
        ),
        ("penalty: {class_path: HERE.Penalty}", "names Penalty, which is abstract"),
        ("penalty: {class_path: HERE.Laso}", "names Laso, which HERE does not have; did you mean `Lasso`?"),
        ("penalty: {class_path: no_such.Lasso}", "the module no_such, which cannot be imported"),
        ("penalty: {class_path: Lasso}", "must be a dotted path"),
        ("penalty: {class_path: 3}", "must be a dotted path"),
    ],
)
def test_wrong_values_are_refused_with_path_and_expected_type(written, text, message):
    with pytest.raises(RecipeError) as caught:
        recipe.resolve(Recipe, written(MINIMAL + text.replace("HERE", HERE)))
    assert message.replace("HERE", HERE) in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"model: {HERE}.Network", "recipe.yaml: lacks `data`, which Recipe needs"),
        (f"data: {HERE}.Folder\nmodel: {HERE}.Network", "`data.init_args` lacks `root`, which Folder needs"),
        (
            f"data: {HERE}.Scenes\nmodel: {{class_path: {HERE}.Network, init_args: {{num_classes: 3}}}}",
            "line 2: `model.init_args.num_classes` is filled in by the run; leave it out",
        ),
    ],
)
def test_what_is_missing_or_not_the_users_is_said(written, text, message):
    with pytest.raises(RecipeError) as caught:
        recipe.resolve(Recipe, written(text))
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("data: [1, 2\nmodel: 3", "line 2: this is not valid YAML"),
        ("data:\n\tmodel: 3", "line 2: this is not valid YAML"),
        ("data: 1\n---\ndata: 2", "this is not valid YAML"),
        ("data: !!python/object/apply:os.getcwd []", "line 1: this is not valid YAML"),
        ("- data", "line 1: a recipe is a mapping"),
        ("data: 1\nname: a\nname: b", "line 3: `name` is written twice (first in line 2)"),
    ],
)
def test_invalid_yaml_is_refused_with_its_line(written, text, message):
    with pytest.raises(RecipeError) as caught:
        recipe.resolve(Recipe, written(text))
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "text", ["1e3", "12e03", ".5e3", "010", "1:30", "2001-01-01", "yes", "null", "0x1F", " a ", "a: b"]
)
def test_text_that_looks_like_another_value_stays_text(written, text):
    values = recipe.resolve(Recipe, written(MINIMAL), [f"name={text!r}"])
    assert values["name"] == text
    again = recipe.load(Recipe, written(recipe.dump(values)))
    assert again.name == text


def test_files_that_cannot_be_read(tmp_path, written):
    with pytest.raises(RecipeError, match=r"absent\.yaml cannot be read: No such file"):
        recipe.load(Recipe, tmp_path / "absent.yaml")
    with pytest.raises(RecipeError, match="cannot be read: Is a directory"):
        recipe.load(Recipe, tmp_path)
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RecipeError, match="not UTF-8"):
        recipe.load(Recipe, tmp_path / "binary.yaml")
    with pytest.raises(RecipeError, match="lacks `data`"):
        recipe.load(Recipe, written(""))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.epochs", "is not of the form key.path=value"),
        ("=3", "is not of the form"),
        ("train..epochs=3", "is not of the form"),
        ("train.epochs=[3", "the value is not valid YAML"),
        ("train.epohs=3", "override `train.epohs=3`: `train.epohs` is not a known key; did you mean `epochs`?"),
        ("train.epochs=many", "override `train.epochs=many`: `train.epochs` must be int, not 'many'"),
        ("name.first=3", "`name` must be str"),
        ("train.epochs.first=3", "`train.epochs` must be int"),
        (
            "data.sead=3",
            "override `data.sead=3`: `data.init_args.sead` is not a known key; did you mean `seed`?",
        ),
        ("train=3", "override `train=3`: `train` must be a mapping"),
        ('name="a\\0b"', "the value is not valid YAML: it holds a NUL character"),
        ("train.epochs=010", "`train.epochs` must be int, not '010'"),  # 8 in YAML 1.1
        ("train.epochs=1:30", "`train.epochs` must be int, not '1:30'"),  # 90 in YAML 1.1
        ("train.epochs='0o10'", "`train.epochs` must be int, not '0o10'"),
        ("data.size=[128, 0256]", "`data.init_args.size` must be tuple[int, int], not [128, '0256']"),
    ],
)
def test_overrides_that_do_not_fit_are_named(written, override, message):
    with pytest.raises(RecipeError) as caught:
        recipe.resolve(Recipe, written(MINIMAL), [override])
    assert message in str(caught.value)


TRAIN = f"{MINIMAL}train:\n  epochs: 3\n  learning_rate: 0.1\n"


@pytest.mark.parametrize(
    ("text", "overrides", "place"),
    [
        (TRAIN, ["train.epochs=0"], "override `train.epochs=0`: `train` is refused: epochs is 0"),
        (TRAIN, ["name=other", "train.milestones=[0]"], "override `train.milestones=[0]`: `train` is refused"),
        (TRAIN, ["train.epochs=2", "train.learning_rate=-1"], "override `train.learning_rate=-1`: `train` is refused"),
        (TRAIN, ["train.learning_rate=2", "train.epochs=0"], "override `train.epochs=0`: `train` is refused: epochs"),
        (TRAIN.replace("3", "0"), ["train.milestones=[1]"], "recipe.yaml, line 6: `train` is refused: epochs is 0"),
        (TRAIN.replace("0.1", "7"), ["train.epochs=2"], "recipe.yaml, line 6: `train` is refused: learning_rate is 7"),
    ],
)
def test_what_settings_refuse_is_blamed_on_the_override_that_brought_it(written, text, overrides, place):
    with pytest.raises(RecipeError) as caught:
        recipe.load(Recipe, written(text), overrides)
    assert place in str(caught.value)


def test_a_component_that_refuses_its_settings_is_a_recipe_error(written, capsys):
    with pytest.raises(RecipeError, match="seed must not be negative"):
        recipe.load(Recipe, written(MINIMAL), ["data.seed=-1"])
    with pytest.raises(RecipeError, match="seed too large"):
        recipe.load(Recipe, written(MINIMAL), ["data.seed=100"])
    assert capsys.readouterr() == ("", "")


def test_nothing_is_built_by_resolve(written):
    assert recipe.resolve(Recipe, written(MINIMAL), ["data.seed=-1"])["data"]["init_args"]["seed"] == -1


def test_a_class_that_takes_any_settings_is_left_to_itself(written):
    path = written(f"data: {HERE}.Scenes\nmodel: {HERE}.Anything\n")
    assert recipe.load(Recipe, path).model(num_classes=2).settings == {}


def test_a_class_without_annotations_takes_plain_values(written):
    path = written(f"data: {HERE}.Scenes\nmodel: {{class_path: {HERE}.Bare, init_args: {{width: 3, kinds: [1, a]}}}}\n")
    assert recipe.load(Recipe, path).model(num_classes=2).given == (2, 3, (1, "a"))
    with pytest.raises(RecipeError, match=r"did you mean `width`\?"):
        recipe.load(Recipe, path, ["model.init_args.widht=2"])


def test_build_takes_plain_data():
    values = {"data": f"{HERE}.Scenes", "model": f"{HERE}.Network", "train": {"epochs": 2}}
    assert recipe.build(Recipe, values).train.epochs == 2
    partial = {"data": {"seed": 4}}
    assert recipe.build(Complete, partial).data == Scenes(seed=4)
    assert partial == {"data": {"seed": 4}}
    with pytest.raises(RecipeError, match=r"recipe: `train\.epohs`"):
        recipe.build(Recipe, {**values, "train": {"epohs": 2}})


def test_a_recipe_made_in_python_describes_itself(written):
    made = Recipe(
        data=Folder(root=Path("there"), colour=Colour.BLUE),
        model=functools.partial(Network, width=0.5),
        train=Train(milestones=(1, 2)),
        extras=(Lasso(), Lasso(strength=2.0)),
    )
    values = recipe.describe(made)
    loaded = recipe.load(Recipe, written(recipe.dump(values)))
    assert (loaded.data, loaded.train, loaded.extras) == (made.data, made.train, made.extras)
    assert loaded.model(num_classes=3).head.weight.shape == (3, 2)
    assert recipe.describe(loaded) == values == recipe.resolve(Recipe, written(recipe.dump(values)))


def test_a_class_alone_is_a_factory_and_objects_without_a_name_are_refused():
    values = recipe.describe(Recipe(data=Scenes(), model=Network, penalty=Lasso()))
    assert values["model"] == {"class_path": f"{HERE}.Network", "init_args": {"width": 1.0}}
    assert values["penalty"] == {"class_path": f"{HERE}.Lasso", "init_args": {"strength": 1e-4}}
    with pytest.raises(RecipeError, match="`model` is <function"):
        recipe.describe(Recipe(data=Scenes(), model=lambda num_classes: nn.Linear(1, num_classes)))

    class Local(Network):
        pass

    with pytest.raises(RecipeError, match=r"`model` is of .*Local, which has no dotted path"):
        recipe.describe(Recipe(data=Scenes(), model=Local))
    with pytest.raises(RecipeError, match=r"recipe: `train\.epochs` must be int, not 'x'"):
        recipe.describe(Recipe(data=Scenes(), model=Network, train=Train(epochs="x")))
