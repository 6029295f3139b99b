"""Claims of the talk, one row each, on real data of a size that one core can train.

    python benchmarks/claims.py --data DATA [--rows a b c d e f] [--runs runs/claims]

DATA contains chars74k_img36 and cifar10_jpg. Every arm (see `claims_arms.py`) is trained once per seed and kept in its
folder, so the benchmark can be stopped and resumed, row by row. Writes results/claims.json and claims.md. A gain counts
as seen if its mean over the seeds exceeds its standard error, "no loss" if the mean loss is below it. Few seeds prove
little, so each figure has its spread. A claim that is not seen stays in the table.
"""

import argparse
import dataclasses
import functools
import json
import math
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from claims_arms import NUM_SKIPS, arms, outcome
from result import write_result

HERE = Path(__file__).parent
Figures = Callable[[str, str, str], list[float]]  # (arm, network, quantity) -> one value per seed


@dataclasses.dataclass(frozen=True)
class Row:
    """A claim: its text, its arms and number of seeds, and the function that decides whether it was seen."""

    claim: str
    arms: tuple[str, ...]
    seeds: int
    judge: Callable[[Figures], tuple[bool, str]]


def spread(values: list[float], unit: float = 100.0) -> str:
    """Return "mean ± standard deviation", in points."""
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{unit * statistics.mean(values):.1f} ± {unit * deviation:.1f}"


def gain(first: list[float], second: list[float]) -> tuple[float, float]:
    """Return the mean of second - first, paired by seed, and its standard error."""
    differences = [b - a for a, b in zip(first, second, strict=True)]
    return statistics.mean(differences), statistics.stdev(differences) / math.sqrt(len(differences))


def removed(figures: Figures, arm: str, network: str = "joint") -> list[float]:
    """Return the share of the plain network's parameters that is removed."""
    whole = figures("plain", "joint", "params")
    return [1 - a / b for a, b in zip(figures(arm, network, "params"), whole, strict=True)]


def joint_training(figures: Figures) -> tuple[bool, str]:
    plain = figures("plain", "joint", "top1")
    told, seen = [f"plain {spread(plain)}"], False
    for arm, name in (("groups", "group lasso"), ("half", "budget of 50 %"), ("budget", "budget of 40 %")):
        mean, error = gain(plain, figures(arm, "joint", "top1"))
        gone = removed(figures, arm)
        seen |= min(gone) >= 0.5 and mean >= -error
        told.append(f"{name} {spread(figures(arm, 'joint', 'top1'))} with {spread(gone)} % of the parameters removed")
    return seen, "; ".join(told)


def low_rank(figures: Figures) -> tuple[bool, str]:
    tops = {arm: figures(arm, "narrow", "top1") for arm in ("budget", "ranks-budget")}
    gone = {arm: removed(figures, arm, "narrow") for arm in tops}
    accuracy, error = gain(tops["budget"], tops["ranks-budget"])
    more, _ = gain(gone["budget"], gone["ranks-budget"])
    told = [f"{arm}: {spread(tops[arm])} top-1, {spread(gone[arm])} % removed" for arm in tops]
    return more > 0 and accuracy >= -error, "both factorised at energy 0.9; " + "; ".join(told)


def expansion(figures: Figures) -> tuple[bool, str]:
    seen, told = True, []
    for kernel in (3, 7):
        small, wide = (
            figures(f"{kind}-k{kernel}", name, "top1") for kind, name in (("small", "joint"), ("expanded", "narrow"))
        )
        mean, error = gain(small, wide)
        seen &= mean > error
        told.append(
            f"k{kernel}: {spread(small)} to {spread(wide)}, {100 * mean:+.1f} points (standard error {100 * error:.1f})"
        )
    return seen, "; ".join(told)


def from_scratch(figures: Figures) -> tuple[bool, str]:
    joint, seen = figures("budget", "joint", "top1"), True
    told = [f"joint {spread(joint)}"]
    for optimizer in ("sgd", "adam"):
        scratch = figures(f"budget/{optimizer}", "joint", "top1")
        mean, error = gain(scratch, joint)
        seen &= mean > error
        told.append(f"from scratch with {optimizer} {spread(scratch)}")
    return seen, "; ".join(told)


def decorrelation(figures: Figures) -> tuple[bool, str]:
    tops = {arm: figures(arm, "narrow", "top1") for arm in ("plain", "orthogonal")}
    gone = {arm: removed(figures, arm, "narrow") for arm in tops}
    mean, error = gain(gone["plain"], gone["orthogonal"])
    told = [f"{arm}: {spread(tops[arm])} top-1, {spread(gone[arm])} % removed" for arm in tops]
    return mean <= error, "both factorised at energy 0.9; " + "; ".join(told)


def learned_depth(figures: Figures) -> tuple[bool, str]:
    plain, budget = (functools.partial(figures, arm, "joint") for arm in ("skips", "skips-budget"))
    left, tops = budget("skipped_pairs"), [plain("top1"), budget("top1")]
    mean, error = gain(*tops)
    gone = [1 - a / b for a, b in zip(budget("params"), plain("params"), strict=True)]
    told = f"{' and '.join(map(str, left))} of {NUM_SKIPS} skipped pairs stay; plain {spread(tops[0])}, "
    told += f"budget {spread(tops[1])} with "
    return max(left) < NUM_SKIPS and mean >= -error, told + f"{spread(gone)} % of the parameters removed"


ROWS = {
    "a": Row(
        "Joint training removes at least half of Dec3's parameters on characters at no loss",
        ("plain", "groups", "half", "budget"),
        5,
        joint_training,
    ),
    "b": Row(
        "Low rank and group sparsity remove more than group sparsity alone at equal accuracy",
        ("plain", "budget", "ranks-budget"),
        2,
        low_rank,
    ),
    "c": Row(
        "The expanded SmallNet beats SmallNet, k3 and k7",
        ("small-k3", "expanded-k3", "small-k7", "expanded-k7"),
        5,
        expansion,
    ),
    "d": Row(
        "The joint network beats its own architecture trained from scratch",
        ("budget", "budget/sgd", "budget/adam"),
        5,
        from_scratch,
    ),
    "e": Row("Orthogonality does not help compression", ("plain", "orthogonal"), 2, decorrelation),
    "f": Row("Skip layers that training finds useless vanish, at no loss", ("skips", "skips-budget"), 2, learned_depth),
}


def measured(row: Row, data: Path, runs: Path) -> dict[str, Any]:
    """Train the arms that are not trained yet, and judge the claim."""
    known = arms(data)
    found = {
        (arm, seed): outcome(
            known[arm.partition("/")[0]], arm, seed, runs / f"{arm.replace('/', '-from-scratch-')}-{seed}"
        )
        for arm in row.arms
        for seed in range(row.seeds)
    }

    def figures(arm: str, network: str, quantity: str) -> list[float]:
        return [found[arm, seed][network][quantity] for seed in range(row.seeds)]

    seen, text = row.judge(figures)
    each = {f"{arm}, seed {seed}": value for (arm, seed), value in found.items()}
    return {"claim": row.claim, "seen": seen, "what": text, "seeds": row.seeds, "arms": each}


def table(rows: dict[str, Any]) -> str:
    """Return the rows in Markdown."""
    lines = ["| | claim | seen | measured: test top-1 in %, mean ± standard deviation |", "|---|---|---|---|"]
    for name, row in sorted(rows.items()):
        verdict = "yes" if row["seen"] else "no"
        lines.append(f"| {name} | {row['claim']} | {verdict} | {row['what']} ({row['seeds']} seeds) |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--rows", nargs="+", default=list(ROWS), choices=list(ROWS))
    parser.add_argument("--runs", type=Path, default=Path("runs/claims"))
    parser.add_argument("--out", type=Path, default=HERE / "results")
    options = parser.parse_args()
    torch.set_num_threads(1)
    path = options.out / "claims.json"
    result = {"rows": json.loads(path.read_text(encoding="utf-8"))["rows"] if path.exists() else {}}
    for name in options.rows:
        result["rows"][name] = measured(ROWS[name], options.data, options.runs)
        write_result("claims", result, folder=options.out, data=str(options.data))
        path.with_suffix(".md").write_text(table(result["rows"]), encoding="utf-8")
        print(name, result["rows"][name]["seen"], result["rows"][name]["what"], flush=True)


if __name__ == "__main__":
    main()
