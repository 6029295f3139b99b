"""The gate: slices by hand, paired intervals, verdicts, tags, files, and that one pass over the images pays for all."""

import dataclasses
import time

import pytest
import torch
from torch import nn

import prunus
from prunus.boxes import Objects
from prunus.data import StreetBoxesData, StreetData
from prunus.data.interface import Data, Split
from prunus.deploy import export_onnx
from prunus.errors import DataError, DeployError, RecipeError, TrainingError
from prunus.gate import Gate
from prunus.gate.slices import DOUBTFUL, FELL, KEPT, SMALL, judge, slices_of
from prunus.gate.tags import conditions_of
from prunus.tasks.box_statistics import BoxStatistics
from prunus.tasks.classification import Classification
from prunus.tasks.detection import objects_of
from prunus.tasks.matching import average_precision, match
from prunus.tasks.segmentation import Segmentation
from prunus.tasks.statistics import LabelStatistics, expected_calibration_error
from prunus.train.settings import Train

CPU = Train(batch_size=16, device="cpu")


class Numbers(Split):
    """Images whose first pixel is their label, or another where the image is marked as hard."""

    def __init__(self, num: int, files: bool = False) -> None:
        super().__init__(0)
        self.num = num
        self.source = self if files else None

    def listing(self):
        return (f"{index // 4}/{index}{' b' if index == 7 else ''}.png {index % 3}" for index in range(self.num))

    def __len__(self) -> int:
        return self.num

    def sample(self, index):
        image = torch.zeros(1, 2, 2)
        image[0, 0, 0], image[0, 0, 1] = index % 3, index % 2
        return image, torch.tensor(index % 3)

    def picture(self, index):
        return torch.zeros(3, 2, 2, dtype=torch.uint8)

    def conditions(self, index):
        return ("night",) if index % 2 else ("day",)


@dataclasses.dataclass(frozen=True, kw_only=True)
class NumbersData(Data):
    num: int = 300
    targets = "labels"
    class_names = ("zero", "one", "two")

    def split(self, name):
        return Numbers(self.num)


class Reader(nn.Module):
    """Reads the label; gets those of `blind` wrong at night."""

    def __init__(self, blind: int | None = None) -> None:
        super().__init__()
        self.blind = blind

    def forward(self, images):
        labels, night = images[:, 0, 0, 0].long(), images[:, 0, 0, 1] > 0
        if self.blind is not None:
            labels = torch.where(night & (labels == self.blind), (labels + 1) % 3, labels)
        return nn.functional.one_hot(labels, 3).float() * 9


def test_one_class_at_night_fails_and_is_named_first():
    found = prunus.compare(Reader(), Reader(blind=1), NumbersData(), train=CPU)
    by_name = {each.name: each for each in found.slices}
    assert not found.passed and found.slices[0].name == "one, night"
    assert by_name["one, night"].drop == 1 and by_name["one, day"].drop == 0
    assert by_name["all"].drop == pytest.approx(1 / 6) and by_name["all"].samples == 300
    assert by_name["one"].drop == pytest.approx(0.5) and by_name["night"].drop == pytest.approx(1 / 3)
    assert {each.name for each in found.fallen} == {"one, night", "one", "night", "all"}
    assert by_name["one"].low < 0.5 < by_name["one"].high
    assert sorted(found.most_different(300)) == [index for index in range(300) if index % 3 == 1 and index % 2]


def test_equal_networks_pass_whatever_is_allowed():
    found = prunus.compare(Reader(blind=1), Reader(blind=1), NumbersData(), max_drop=0, train=CPU)
    assert found.passed and {each.verdict for each in found.slices} == {KEPT}
    assert all((each.low, each.high) == (0, 0) for each in found.slices) and not found.most_different(9)


def test_what_is_too_small_to_judge_is_shown_and_judges_nothing():
    found = prunus.compare(Reader(), Reader(blind=1), NumbersData(num=60), settings=Gate(min_samples=25), train=CPU)
    by_name = {each.name: each for each in found.slices}
    assert by_name["one, night"].verdict == SMALL and by_name["one, night"].drop == 1
    assert by_name["one"].verdict == SMALL and by_name["one"].samples == 20
    assert by_name["night"].verdict == FELL and found.slices[-1].verdict == SMALL


def test_a_drop_that_may_be_chance_is_in_doubt():
    num = 40
    statistics = [LabelStatistics(("a", "b"), lambda output: output) for _ in range(2)]
    target = torch.zeros(num, dtype=torch.int64)
    right, wrong = torch.tensor([5.0, 0]), torch.tensor([0, 5.0])
    for each, misses in zip(statistics, (2, 3), strict=True):
        each.update(torch.stack([wrong if index < misses else right for index in range(num)]), target)
    counts = [each.counts() for each in statistics]
    (whole,) = judge(*counts, slices_of(counts[0], [()] * num, ()), Gate(max_drop=0.5))
    assert whole.drop == pytest.approx(1 / 40) and whole.low == 0 < whole.high and whole.verdict == DOUBTFUL
    (whole,) = judge(*counts, slices_of(counts[0], [()] * num, ()), Gate(max_drop=20))
    assert whole.verdict == KEPT


def test_the_interval_of_a_share_is_the_known_one():
    num, share = 4000, 0.2
    statistics = [LabelStatistics(("a",), lambda output: output) for _ in range(2)]
    for each, misses in zip(statistics, (0, int(num * share)), strict=True):
        each.scores = lambda output: torch.cat([output, 0.5 - output], dim=1)
        each.update(torch.tensor([[0.0 if index < misses else 1.0] for index in range(num)]), torch.zeros(num).long())
    counts = [each.counts() for each in statistics]
    (whole,) = judge(*counts, slices_of(counts[0], [()] * num, ()), Gate(resamples=2000))
    half = 1.96 * (share * (1 - share) / num) ** 0.5
    assert whole.low == pytest.approx(share - half, abs=half / 8) and whole.high == pytest.approx(
        share + half, abs=half / 8
    )


def test_kinds_of_which_the_data_say_nothing_are_left_out():
    found = prunus.compare(Reader(), Reader(), NumbersData(), per=("size", "distance"), train=CPU)
    assert [each.kind for each in found.slices] == ["all"]
    with pytest.raises(RecipeError, match=r"gate\.per names weather; known: class"):
        Gate(per=("weather",))
    for wrong in ({"max_drop": -1}, {"confidence": 1.0}, {"resamples": 10}, {"min_samples": 0}):
        with pytest.raises(RecipeError, match="gate"):
            Gate(**wrong)


def test_tags_come_from_a_file_and_unknown_images_are_named(tmp_path):
    path = tmp_path / "tags.csv"
    path.write_text("0/0.png,rain,city\n5.png, snow\n7 b.png,fog\n")
    found = conditions_of(Numbers(8, files=True), path)
    assert found[0] == ("rain", "city") and found[5] == ("snow",) and found[1] == ()
    assert found[7] == ("fog",)
    path.write_text("0/0.png,rain\nother.png,snow\n")
    with pytest.raises(DataError, match=r"names 1 images that are not in the split, other\.png"):
        conditions_of(Numbers(8, files=True), path)
    path.write_text("0/0.png,rain\n0/0.png,snow\n")
    with pytest.raises(DataError, match=r"line 2: 0/0\.png is named twice"):
        conditions_of(Numbers(8, files=True), path)
    path.write_text("0.png,rain\n0/0.png,snow\n")
    with pytest.raises(DataError, match=r"0\.png and 0/0\.png are the same image"):
        conditions_of(Numbers(8, files=True), path)
    for nothing in ("", "0/0.png\n"):
        path.write_text(nothing)
        with pytest.raises(DataError, match="names no condition of any image"):
            conditions_of(Numbers(8, files=True), path)
    with pytest.raises(DataError, match="Numbers reads none"):
        conditions_of(Numbers(8), path)


def test_segmentation_slices_are_those_of_the_metric():
    data = StreetData(size=(16, 32), num_train=2, num_validation=2, num_test=10)
    torch.manual_seed(0)
    wide, narrow = (nn.Conv2d(3, len(data.class_names), 1).eval() for _ in range(2))
    found = prunus.compare(wide, narrow, data, task=Segmentation(class_weight_offset=None), train=CPU)
    task = Segmentation(class_weight_offset=None).bind(data)
    by_name = {(each.kind, each.name): each for each in found.slices}
    metric, night = task.metrics(), task.metrics()
    for index in range(10):
        image, mask = data.test()[index]
        with torch.no_grad():
            output = wide(image[None])
        metric.update(output, mask[None])
        if data.scene("test", index).condition == "night":
            night.update(output, mask[None])
    metrics, per_class = metric.compute()
    assert by_name["all", "all"].wide == pytest.approx(metrics["miou"], abs=1e-6)
    for name, value in per_class.items():
        assert by_name["class", name].wide == (None if value is None else pytest.approx(value, abs=1e-6))
    assert by_name["condition", "night"].wide == pytest.approx(night.compute()[0]["miou"], abs=1e-6)
    assert all(0 <= error <= 1 for error in found.calibration)


def boxes(*rows, scale=1.0, distance=None):
    rows = torch.tensor(rows, dtype=torch.float32)
    far = None if distance is None else torch.tensor(distance)
    return Objects.of(rows[:, 1:], rows[:, 0].long(), scale=scale, distance=far)


def test_an_image_of_several_classes_is_one_sample_of_a_segmentation():
    data = StreetData(size=(16, 32), num_train=1, num_validation=1, num_test=6)
    statistics = Segmentation(class_weight_offset=None).bind(data).statistics()
    split = data.test()
    for index in range(len(split)):
        mask = split[index][1][None]
        statistics.update(torch.nn.functional.one_hot(mask.clamp(min=0), len(data.class_names)).movedim(3, 1), mask)
    counts = statistics.counts()
    conditions = [split.conditions(index) for index in range(6)]
    found = judge(counts, counts, slices_of(counts, conditions, ("class", "condition")), Gate(min_samples=1))
    samples = {each.name: each.samples for each in found}
    assert samples["all"] == 6 and counts.samples.sum() > 6
    for tag in set(sum(conditions, ())):
        assert samples[tag] == sum(tag in own for own in conditions)


def test_detection_slices_by_hand():
    statistics = BoxStatistics(("a", "b"), lambda output: output, objects_of, [0.5, 0.5])
    near = boxes((0, 0, 0, 20, 20), (0, 100, 0, 200, 100), (1, 50, 50, 90, 90), distance=[60.0, 10.0, 20.0])
    rows = torch.tensor([[0, 0, 0, 20, 20, 0.9], [0, 300, 0, 320, 20, 0.8], [0, 100, 0, 200, 100, 0.7]])
    none = torch.zeros(1, 6)
    statistics.update(torch.stack([rows, none.expand(3, 6)]), torch.stack([near.rows(3), near.rows(3)]))
    counts = statistics.counts()
    slices = slices_of(counts, [("day",), ("night",)], ("class", "size", "distance", "condition"))
    table = {(each.kind, each.name): counts.value(each.units, torch.ones(2, 1))[0].item() for each in slices}
    # four objects of a, two found, the wrong one between: 1 up to recall 1/4 (26 positions), 2/3 up to 1/2 (25 more)
    assert table["class", "a"] == pytest.approx((26 + 25 * 2 / 3) / 101, abs=1e-6)
    assert table["class", "b"] == 0 and table["all", "all"] == pytest.approx(table["class", "a"] / 2)
    # small: one of two found, then the wrong one, which is small; medium: class b alone; large: one of two
    assert table["size", "small"] == table["size", "large"] == pytest.approx(51 / 101, abs=1e-6)
    assert table["size", "medium"] == 0 and counts.samples.sum(1)[0] == 4
    assert table["distance", "from 50 m"] == pytest.approx(51 / 101, abs=1e-6)
    day, night = (torch.tensor([[value], [1 - value]]) for value in (1.0, 0.0))
    assert counts.value((0,), day).item() == pytest.approx((51 + 50 * 2 / 3) / 101, abs=1e-6)
    assert counts.value((0,), night).item() == 0


def test_the_scores_in_steps_give_nearly_the_exact_average_precision():
    generator = torch.Generator().manual_seed(0)
    statistics = BoxStatistics(("a",), lambda output: output, objects_of, [0.5])
    scores, outcomes, number = [], [], 0
    for _ in range(60):
        corners = torch.rand(6, 2, generator=generator) * 400
        truth = Objects.of(torch.cat([corners, corners + 40], dim=1), torch.zeros(6).long())
        rows = torch.zeros(10, 6)
        rows[:6, 1:5] = truth.boxes + torch.randn(6, 4, generator=generator) * 6
        rows[6:, 1:3] = torch.rand(4, 2, generator=generator) * 400
        rows[6:, 3:5] = rows[6:, 1:3] + 40
        rows[:, 5] = torch.rand(10, generator=generator) * 0.9 + 0.05
        rows[:6, 5] = rows[:6, 5].sqrt()
        statistics.update(rows[None], truth.rows(6)[None])
        found = match(rows, truth, [0.5])
        scores.append(torch.from_numpy(found.rows[:, 5].copy()))
        outcomes.append(torch.from_numpy(found.outcomes))
        number += 6
    recalls = torch.linspace(0, 1, 101).numpy()
    exact = average_precision(torch.cat(scores).numpy(), torch.cat(outcomes).numpy(), number, recalls)
    assert 0.3 < exact < 0.95
    assert statistics.counts().value((0,), torch.ones(60, 1)).item() == pytest.approx(exact, abs=0.006)


def test_calibration_by_hand():
    statistics = LabelStatistics(("a", "b"), lambda output: output)
    sure, unsure = torch.tensor([[3.0, 0.0]]), torch.tensor([[0.2, 0.0]])
    statistics.update(torch.cat([sure, sure, unsure, unsure]), torch.tensor([0, 1, 0, 0]))
    p, q = (torch.softmax(each, 1).max().item() for each in (sure, unsure))
    expected = (abs(1 - 2 * p) + abs(2 - 2 * q)) / 4
    assert expected_calibration_error(statistics.calibration()) == pytest.approx(expected, abs=1e-6)
    assert expected_calibration_error(torch.zeros(15, 3)) is None


def test_files_are_compared_like_modules(tmp_path):
    data = NumbersData(num=30)
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3)).eval()
    path = export_onnx(model, torch.zeros(1, 1, 2, 2), tmp_path / "net.onnx")
    found = prunus.compare(model, path, data, task=Classification(), train=CPU)
    assert found.passed and all(each.drop == 0 for each in found.slices)
    with pytest.raises(RecipeError, match=r"net\.txt is not a network to compare"):
        prunus.compare(model, tmp_path / "net.txt", data, train=CPU)
    with pytest.raises(RecipeError, match=r"absent\.onnx does not exist"):
        prunus.compare(model, tmp_path / "absent.onnx", data, train=CPU)
    other = nn.Sequential(nn.Flatten(), nn.Linear(9, 3)).eval()
    path = export_onnx(other, torch.zeros(1, 1, 3, 3), tmp_path / "other.onnx")
    with pytest.raises(DeployError, match=r"takes inputs \(1, 3, 3\), and the data give \(1, 2, 2\)"):
        prunus.compare(model, path, data, train=CPU)
    with pytest.raises(TrainingError, match=r"Sequential cannot be run on images \[\d+, 1, 2, 2\]"):
        prunus.compare(model, other, data, train=CPU)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"narrow": 3}, "a module, or an ONNX file, not 3"),
        ({"data": None}, "takes a prunus.data.Data"),
        ({"split": "tets"}, "train, validation, test"),
        ({"per": "clas"}, "gate.per names clas; known: class"),
    ],
)
def test_what_cannot_be_compared_is_named(changes, said):
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3)).eval()
    asked = {"wide": model, "narrow": model, "data": NumbersData(num=4), "train": CPU} | changes
    with pytest.raises(RecipeError, match=said):
        prunus.compare(asked.pop("wide"), asked.pop("narrow"), asked.pop("data"), **asked)


def test_kinds_of_slices_may_be_one_text():
    assert Gate(per="class, class in condition").per == ("class", "class in condition")


def test_robustness_is_the_main_metric_on_changed_images():
    class Bright(nn.Module):
        def forward(self, images):
            return torch.nn.functional.one_hot(images[:, 0, 0, 0].round().long().clamp(0, 2), 3).float()

    found = prunus.compare(Bright(), Bright(), NumbersData(num=30), settings=Gate(robust_images=12), train=CPU)
    table = {(each.change, each.strength): each for each in found.robustness}
    assert table["noise", 0.02].wide == 1 and table["brightness", 0.3].wide < 1
    assert all(each.wide == each.narrow for each in found.robustness)
    assert {change for change, _ in table} == {"noise", "blur", "brightness"}


def test_slices_and_intervals_of_a_thousand_images_cost_little():
    """Of detection, whose counts are the dearest, beside forward passes of 20 ms an image and network."""
    generator, threads = torch.Generator().manual_seed(0), torch.get_num_threads()
    statistics = [BoxStatistics(tuple("abcd"), lambda output: output, objects_of, [0.5] * 4) for _ in range(2)]
    rows, batches = torch.zeros(16, 100, 6), 63
    corners = torch.rand(16, 100, 2, generator=generator) * 280
    rows[..., 0] = torch.randint(4, (16, 100), generator=generator)
    rows[..., 1:3], rows[..., 3:5] = corners, corners + 30
    rows[..., 5] = torch.rand(16, 100, generator=generator) ** 4
    truth = torch.stack([boxes(*each[:3, :5].tolist()).rows(3) for each in rows])
    num = 16 * batches
    conditions = [(("day", "dusk", "night", "rain", "fog")[index % 5],) for index in range(num)]
    torch.set_num_threads(1)
    began = time.process_time()
    for _ in range(batches):
        for each in statistics:
            each.update(rows, truth)
    counts = [each.counts() for each in statistics]
    found = judge(*counts, slices_of(counts[0], conditions, Gate().per), Gate())
    seconds = time.process_time() - began
    torch.set_num_threads(threads)
    assert len(found) == 1 + 4 + 5 + 3 + 20
    forward = 2 * num * 0.02
    assert seconds < 0.05 * forward, f"{seconds:.1f} s of {forward:.1f} s"


def test_street_boxes_compare_by_condition_and_size():
    data = StreetBoxesData(size=(32, 64), num_train=1, num_validation=1, num_test=5)
    torch.manual_seed(0)
    from prunus.models.centre_detector import CentreDetector

    wide, narrow = (CentreDetector(num_classes=3, widths=(4, 8, 8), neck=4) for _ in range(2))
    found = prunus.compare(wide, narrow, data, train=CPU)
    kinds = {each.kind for each in found.slices}
    assert kinds == {"all", "class", "condition", "size", "class in condition"}
    assert set(found.curves[0]) <= set(data.class_names)


def test_tags_are_csv_and_a_name_is_one_image(tmp_path):
    class Files(Numbers):
        def listing(self):
            return iter(("a/1.png 0", "b/1.png 0", "b/2, 3.png 0", "b/2, 3.png 0"))

    path, split = tmp_path / "tags.csv", Files(4, files=True)
    path.write_text('"a/1.png","heavy, rain",night,night\n"2, 3.png",fog\n')
    assert conditions_of(split, path) == [("heavy, rain", "night"), (), ("fog",), ("fog",)]
    path.write_text("1.png,fog\n")
    with pytest.raises(DataError, match=r"line 1: 1\.png may be a/1\.png or b/1\.png: write the path"):
        conditions_of(split, path)
    path.write_text('a/1.png,"fog\n')
    with pytest.raises(DataError, match=r"line 1: .* is not a line of CSV"):
        conditions_of(split, path)


def test_many_tags_are_read_in_linear_time(tmp_path):
    path = tmp_path / "tags.csv"
    path.write_text("".join(f"{number // 4}/{number}.png,night\n" for number in range(40_000) if number != 7))
    began = time.process_time()
    assert conditions_of(Numbers(40_000, files=True), path)[0] == ("night",)
    assert time.process_time() - began < 10  # 36 s where each name was looked for among all
