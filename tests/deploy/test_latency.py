import functools
import gc

import pytest
import torch
from deployed_networks import FrozenBatch, Segmenter, seeded
from torch import nn

import prunus
from prunus import backends
from prunus.backends.openvino import OpenVINO
from prunus.backends.torch import TorchSession
from prunus.deploy import BenchmarkSettings, LatencyMeter, benchmark, latency, latency_ms
from prunus.deploy.latency import time_in_turn
from prunus.deploy.peak_memory import peak_memory_mb
from prunus.errors import DeployError, RecipeError

QUICK = BenchmarkSettings(warmup=1, repeats=5, measure_memory=False)


def test_networks_run_in_turn_without_garbage_collection_and_warm_up_is_not_counted():
    calls: list[str] = []
    collecting: list[bool] = []

    def call(name: str) -> None:
        calls.append(name)
        collecting.append(gc.isenabled())

    seconds = time_in_turn({name: functools.partial(call, name) for name in ("wide", "narrow")}, 2, 3)
    assert calls == ["wide", "narrow"] * 5
    assert {name: len(durations) for name, durations in seconds.items()} == {"wide": 3, "narrow": 3}
    assert not any(collecting) and gc.isenabled()


def test_garbage_collection_comes_back_after_a_failure():
    def fail() -> None:
        raise ValueError

    with pytest.raises(ValueError):
        time_in_turn({"model": fail}, 0, 1)
    assert gc.isenabled()


def test_every_network_is_timed_on_every_backend(segmenter):
    settings = BenchmarkSettings(
        backends=("onnxruntime", "openvino", "torch"), warmup=2, repeats=9, batch_size=2, measure_memory=False
    )
    records = benchmark({"wide": seeded(Segmenter, width=96), "narrow": segmenter}, (3, 64, 128), settings)
    assert [(record.model, record.backend) for record in records] == [
        (model, backend) for backend in settings.backends for model in ("wide", "narrow")
    ]
    for record in records:
        assert (record.threads, record.warmup, record.repeats) == (1, 2, 9)
        assert (record.input_shape, record.device, record.precision) == ((2, 3, 64, 128), "cpu", "float32")
        assert 0 < record.median_ms <= record.p95_ms
        assert record.peak_memory_mb is None
    median = {(record.backend, record.model): record.median_ms for record in records}
    # Twelve times the width is about a hundred times the work: no noise hides that.
    assert all(median[backend, "narrow"] < median[backend, "wide"] for backend in settings.backends)


def test_files_and_several_inputs(fusion_file):
    records = benchmark({"fusion": str(fusion_file)}, ((3, 16, 32), (1, 16, 32)), QUICK)
    assert [record.backend for record in records] == ["onnxruntime", "openvino"]
    assert records[0].input_shape == (1, 3, 16, 32)


def test_peak_memory_is_the_networks_own(segmenter_file, tmp_path):
    """Two activations of [1, 8, 512, 512] floats are 16.8 MB; the interpreter with its libraries is hundreds."""
    settings = BenchmarkSettings(backends=("onnxruntime",), warmup=0, repeats=1)
    model = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.Sigmoid(), nn.Conv2d(8, 1, 3, padding=1))
    (record,) = benchmark({"model": model}, (1, 512, 512), settings)
    assert 16 < record.peak_memory_mb < 60


def test_peak_memory_of_a_module_in_pytorch():
    ballast = torch.zeros(200_000_000, dtype=torch.uint8)  # the parent's memory must not be taken for the child's
    megabytes = peak_memory_mb(nn.Conv2d(1, 16, 3, padding=1).train(), [(1, 1, 512, 512)], backend="torch", threads=1)
    assert len(ballast) == 200_000_000
    assert 16 < megabytes < 80


def test_a_measuring_process_that_fails_says_why(tmp_path):
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"not a network")
    with pytest.raises(DeployError, match=r"peak memory of onnxruntime with broken\.onnx failed.*measure_memory"):
        peak_memory_mb(broken, [(1, 3, 8, 8)], backend="onnxruntime", threads=1)


def test_an_absent_backend_is_noted_or_refused_but_never_passed_over(monkeypatch, segmenter_file):
    monkeypatch.setattr(OpenVINO, "absence", lambda _self: "openvino cannot be imported")
    with pytest.raises(DeployError, match="openvino cannot be used: openvino cannot be imported"):
        benchmark({"model": segmenter_file}, (3, 16, 32), QUICK)
    notes: list[str] = []
    records = benchmark({"model": segmenter_file}, (3, 16, 32), QUICK, note=notes.append)
    assert [record.backend for record in records] == ["onnxruntime"]
    assert notes == ["Latency was not measured on openvino: openvino cannot be imported."]
    alone = BenchmarkSettings(backends=("openvino",))
    with pytest.raises(DeployError, match="none of the backends openvino"):
        benchmark({"model": segmenter_file}, (3, 16, 32), alone, note=notes.append)
    with pytest.raises(DeployError, match="latency cannot be measured on openvino"):
        latency_ms(nn.ReLU(), torch.rand(1, 3), backend="openvino")


def test_a_file_is_not_given_to_pytorch(segmenter_file):
    settings = BenchmarkSettings(backends=("torch",))
    with pytest.raises(DeployError, match="torch runs modules, not files"):
        benchmark({"model": segmenter_file}, (3, 16, 32), settings)


def test_shapes_that_do_not_fit_are_refused(segmenter_file):
    with pytest.raises(DeployError, match="input_shape is"):
        benchmark({"model": segmenter_file}, (3, 0, 32), QUICK)
    with pytest.raises(DeployError, match="input_shape is"):
        benchmark({"model": segmenter_file}, ((3, 16, 32), 3), QUICK)
    with pytest.raises(DeployError, match="Expected: 4"):
        benchmark({"model": segmenter_file}, (1, 3, 16, 32), QUICK)
    with pytest.raises(DeployError, match="no networks"):
        benchmark({}, (3, 16, 32), QUICK)


@pytest.mark.parametrize("backend", ["onnxruntime", "torch"])
def test_the_meter_of_a_budget_in_milliseconds(backend):
    """FrozenBatch can only be exported for its own shape, which is what the meter does."""
    meter = functools.partial(latency_ms, backend=backend, warmup=1, repeats=3)
    model = FrozenBatch().train()
    assert 0 < meter(model, torch.rand(2, 3, 8, 8)) < 1000
    assert model.training


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"threads": 0}, "threads is 0: it must be at least 1"),
        ({"repeats": 0}, "repeats is 0"),
        ({"warmup": -1}, "warmup is -1: it must be at least 0"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"backends": ()}, "name at least one"),
        ({"backends": ("torch", "torch")}, "none twice"),
        ({"backends": ("openvno",)}, "Did you mean 'openvino'"),
    ],
)
def test_settings_that_mean_nothing_are_refused(values, message):
    with pytest.raises(RecipeError, match=message):
        BenchmarkSettings(**values)


def test_settings_name_known_backends_by_default():
    assert set(BenchmarkSettings().backends) <= set(backends.BACKENDS)


class Clock:
    """A machine whose load changes at every network that is loaded; a call takes a microsecond per parameter."""

    def __init__(self) -> None:
        self.now, self.load = 0.0, 1.0

    def perf_counter(self) -> float:
        return self.now

    def bind(self, session, inputs):
        size = sum(parameter.numel() for parameter in session._model.parameters()) / 1e6

        def call() -> None:
            self.now += size * self.load

        return call


def test_a_meter_compares_networks_of_different_moments(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(latency, "time", clock)
    monkeypatch.setattr(TorchSession, "bind", lambda session, inputs: clock.bind(session, inputs))
    wide, narrow = (seeded(Segmenter, width=width) for width in (64, 16))
    size = {net: sum(parameter.numel() for parameter in net.parameters()) for net in (wide, narrow)}
    settings = BenchmarkSettings(backends=("torch",), warmup=0, repeats=3)
    meter, taken = LatencyMeter(wide, torch.rand(1, 3, 16, 32), settings), []
    for clock.load, network in ((3.0, wide), (1.0, narrow), (7.0, wide), (0.5, narrow)):
        taken.append(meter(network))
    assert taken[0] == pytest.approx(taken[2]) and taken[1] == pytest.approx(taken[3])
    folded = prunus.apply(prunus.fuse(wide, torch.rand(1, 3, 16, 32)), wide)
    assert sum(parameter.numel() for parameter in folded.parameters()) < size[wide]  # BatchNorm costs nothing
    assert taken[1] / taken[0] == pytest.approx(size[narrow] / size[wide], rel=0.05)
    alone = [latency_ms(wide, torch.rand(1, 3, 16, 32), backend="torch") for clock.load in (3.0, 1.0)]
    assert alone[0] == pytest.approx(3 * alone[1])  # which a measurement of one moment cannot know


@pytest.mark.parametrize("backend", ["onnxruntime", "torch"])
def test_a_meter_takes_several_inputs_of_any_kind(backend):
    class Pair(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.mix = nn.Embedding(5, 4), nn.Linear(4, 4)

        def forward(self, tokens, image):
            return {"sum": self.mix(self.table(tokens)) + image}

    settings, example = BenchmarkSettings(backends=(backend,), repeats=2), (torch.tensor([[1, 2]]), torch.rand(1, 2, 4))
    assert 0 < LatencyMeter(Pair(), example, settings)(Pair()) < 1000


def test_a_meter_without_a_backend_is_refused(monkeypatch):
    monkeypatch.setattr(OpenVINO, "absence", lambda _self: "openvino cannot be imported")
    with pytest.raises(DeployError, match="latency cannot be measured on openvino: openvino cannot be imported"):
        LatencyMeter(nn.ReLU(), torch.rand(1, 3), BenchmarkSettings(backends=("openvino",)))
