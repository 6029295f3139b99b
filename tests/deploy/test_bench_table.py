"""The table of resolutions and backends, and where the time of a network goes."""

import csv
import json

import pytest
import torch
from torch import nn

from prunus import backends
from prunus.deploy import BenchmarkSettings, Target, export_onnx
from prunus.deploy.bench_table import bench_table, frames_per_second, layer_times, rows, write_rows
from prunus.errors import DeployError

SETTINGS = BenchmarkSettings(backends=("onnxruntime", "torch"), warmup=0, repeats=2, batch_size=2, measure_memory=False)
PRESENT = [name for name in ("onnxruntime", "openvino", "torch") if backends.find(name).absence() is None]


def network():
    return nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), nn.Conv2d(8, 4, 3)).eval()


def test_a_row_for_each_network_resolution_and_backend(tmp_path):
    shapes = [(3, 16, 32), (3, 32, 64)]
    records = bench_table({"first": network(), "second": network()}, shapes, SETTINGS)
    found = {(record.model, record.input_shape, record.backend) for record in records}
    assert len(records) == len(found) == 8
    assert {shape for _, shape, _ in found} == {(2, 3, 16, 32), (2, 3, 32, 64)}
    assert frames_per_second(records[0]) == pytest.approx(2000 / records[0].median_ms)
    for name in ("table.csv", "table.json"):
        write_rows(tmp_path / name, rows(records))
    with (tmp_path / "table.csv").open(encoding="utf-8") as file:
        read = list(csv.DictReader(file))
    assert [row["fps"] for row in read] == [
        str(row["fps"]) for row in json.loads((tmp_path / "table.json").read_text())
    ]
    assert read[0]["input_shape"] == "2x3x16x32"
    with pytest.raises(DeployError, match=r"neither \.csv nor \.json"):
        write_rows(tmp_path / "table.xls", rows(records))


@pytest.mark.parametrize("name", PRESENT)
def test_layers_are_told_by_the_backend_the_most_first(name):
    times = layer_times(network(), (3, 32, 32), Target(backend=name, batch=2))
    assert [one.milliseconds for one in times] == sorted((one.milliseconds for one in times), reverse=True)
    assert sum("conv" in one.kind.lower() for one in times) == (0 if backends.find(name).reads_modules else 2)


def test_layers_of_a_file(tmp_path):
    path = export_onnx(network(), torch.randn(2, 3, 32, 32), tmp_path / "network.onnx")
    assert layer_times(path, (3, 32, 32), Target(batch=2))
