"""Claim: expanding and contracting MobileNetV2 takes under a second, and leaves its outputs unchanged.

    python benchmarks/reshape.py

torchvision's MobileNetV2 (ImageNet sizes, random weights) is expanded at rate 4 and contracted again: once its
convolutions with a kernel above 1 x 1 (the stem and every depthwise one), and for comparison every convolution. Wall
and processor seconds, the best of five; differences of the outputs, relative to the largest output, in float32.
"""

import argparse
import json
import time
from collections.abc import Callable
from typing import Any

import torch
from result import write_result
from torch import nn

import prunus
from prunus.compat import torchvision
from prunus.verify import difference

REPEATS = 5


def timed(function: Callable[[], Any]) -> tuple[Any, dict[str, float]]:
    """Return the result of `function`, and its least seconds."""
    times = []
    for _ in range(REPEATS):
        began = time.perf_counter(), time.process_time()
        result = function()
        times.append((time.perf_counter() - began[0], time.process_time() - began[1]))
    wall, process = (min(column) for column in zip(*times, strict=True))
    return result, {"wall_seconds": wall, "process_seconds": process}


def reshaped(model: nn.Module, image: torch.Tensor, layers: str, keep_function: bool) -> dict[str, Any]:
    """Expand and contract the network, with planning and applying, and return the figures."""

    def expand() -> tuple[prunus.Plan, nn.Module]:
        plan = prunus.expand(model, layers, 4, keep_function=keep_function)
        return plan, prunus.apply(plan, model)

    def contract() -> nn.Module:
        return prunus.apply(prunus.contract(wide), wide)

    (plan, wide), expanding = timed(expand)
    narrow, contracting = timed(contract)
    return {
        "layers": layers,
        "keep_function": keep_function,
        "num_layers": len(plan),
        "params": sum(parameter.numel() for parameter in model.parameters()),
        "params_expanded": sum(parameter.numel() for parameter in wide.parameters()),
        "expand": expanding,
        "contract": contracting,
        "expanded_vs_original": difference(model, wide, (image,))[1] if keep_function else None,
        "contracted_vs_expanded": difference(wide, narrow, (image,))[1],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    threads = parser.parse_args().threads
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    model = torchvision.models.mobilenet_v2().eval()
    image = torch.randn(2, 3, 224, 224)
    rows = [reshaped(model, image, layers, keep) for layers in ("k>1", "features.*") for keep in (False, True)]
    write_result("reshape", {"threads": threads, "rows": rows})
    for row in rows:
        print(json.dumps(row))


if __name__ == "__main__":
    main()
