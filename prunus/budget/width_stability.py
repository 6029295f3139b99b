"""Width stability: whether the widths that selection would leave still change (EPI: Shen et al., CVPR 2022)."""

from collections.abc import Sequence

MEMORY = 5  # number of earlier epochs to compare the last one with

Widths = Sequence[int]  # per layer


def similarity(first: Widths, second: Widths) -> float:
    """Return 1 - mean over layers of |a_l - b_l| / (a_l + b_l), in [0, 1]; 1 for equal widths."""
    differences = [abs(a - b) / (a + b) if a + b else 0.0 for a, b in zip(first, second, strict=True)]
    return 1 - sum(differences) / len(differences)


def is_stable(history: Sequence[Widths], threshold: float) -> bool:
    """Whether the last of `history` resembles the five before it: the mean similarity is at least `threshold`."""
    *before, last = history[-MEMORY - 1 :]
    return len(before) == MEMORY and sum(similarity(last, each) for each in before) / MEMORY >= threshold
