"""Export an `nn.Module` to a file, check that the file computes the same, and time it where it will run.

`export_onnx` writes the file, `check_parity` compares it with PyTorch on real samples, `benchmark` times several
networks in turn on the backends of `prunus.backends`, `LatencyMeter` measures for a budget in milliseconds.
"""

from prunus.backends.target import Target
from prunus.deploy.export import export_onnx
from prunus.deploy.latency import BenchmarkSettings, benchmark
from prunus.deploy.latency_meter import LatencyMeter, latency_ms
from prunus.deploy.parity import check_parity, require
from prunus.deploy.quantization import Quantize, quantize
from prunus.deploy.target_meter import TargetMeter

__all__ = [
    "BenchmarkSettings",
    "LatencyMeter",
    "Quantize",
    "Target",
    "TargetMeter",
    "benchmark",
    "check_parity",
    "export_onnx",
    "latency_ms",
    "quantize",
    "require",
]
