"""Claim: at equal multiply-adds the solver keeps more importance than greedy selection, and proves its gap.

    python benchmarks/solver.py

For each network and budget, both choose channels by the same importances: the relative norms of the network as built,
and the same multiplied by uniform random numbers, whose spread resembles that in training. The figures are exact and
reproducible; only the processor seconds depend on the machine. "Lost" is the importance of all removed groups; the gap
is the solver's own proven bound.
"""

import time
from collections.abc import Callable

import torch
from result import write_result
from torch import nn

import prunus
from prunus.budget.budget import excess
from prunus.budget.greedy_selection import floors, greedy_selection
from prunus.budget.select import relative_norms
from prunus.budget.solve import solve
from prunus.compat import torchvision
from prunus.models.erfnet import ERFNet

NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "ERFNet": (lambda: ERFNet(num_classes=20), (1, 3, 256, 512)),
    "ResNet-18": (torchvision.models.resnet18, (1, 3, 224, 224)),
    "ResNet-50": (torchvision.models.resnet50, (1, 3, 224, 224)),
    "MobileNetV2": (torchvision.models.mobilenet_v2, (1, 3, 224, 224)),
}
BUDGETS = (
    prunus.Budget(macs=0.7),
    prunus.Budget(macs=0.5),
    prunus.Budget(macs=0.3),
    prunus.Budget(params=0.4),
    prunus.Budget(macs=0.4, params=0.5, multiple_of=8),
)


def rows(name: str) -> list[dict[str, object]]:
    """Return the rows of all budgets."""
    build, shape = NETWORKS[name]
    torch.manual_seed(0)
    model = build().eval()
    groups = prunus.trace(model, torch.randn(shape))
    norms = relative_norms(model, groups)
    spread = norms * torch.rand(len(groups), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found = []
    for kind, importance in (("norms", norms), ("spread", spread)):
        for budget in BUDGETS:
            bounds, floor = budget.absolute(groups), floors(groups, budget)
            greedy = greedy_selection(groups, importance, bounds, floor, budget.multiple_of)
            began = time.process_time()
            solved = solve(groups, importance, bounds, floor, budget.multiple_of)
            seconds = time.process_time() - began
            assert excess(groups, ~solved.removed, bounds) <= 0
            row: dict[str, object] = {
                "network": name,
                "importance": kind,
                "budget": {"macs": budget.macs, "params": budget.params, "multiple_of": budget.multiple_of},
                "total": float(importance[groups.exact].sum()),
                "lost_greedy": float(importance[greedy].sum()),
                "lost_solved": solved.lost,
                "lost_at_least": float(solved.bound),
                "gap": solved.gap,
                "cpu_seconds": round(seconds, 1),
            }
            found.append(row)
            share = solved.lost / float(importance[greedy].sum())
            print(f"{name:12} {kind:7} {row['budget']} lost {share:.1%} of greedy's, gap {solved.gap:.3%}", flush=True)
    return found


def main() -> None:
    """Write benchmarks/results/solver.json."""
    write_result("solver", {"seed": 0, "rows": [row for name in NETWORKS for row in rows(name)]})


if __name__ == "__main__":
    main()
