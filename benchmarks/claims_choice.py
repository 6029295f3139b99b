"""Choose training settings for the arms of `claims.py`, on images held out of the training images.

    python benchmarks/claims_choice.py --data DATA [--only group_share ...] [--runs runs/claims_choice]

Uses one seed, which the table does not use, and no test images. The end of shrinking is that of highest accuracy. The
share of a penalty is the largest that costs at most one point against the plain network, or else the one that costs
least. The choices are entered into `claims_arms.Settings` by hand. Writes results/claims_choice.json.
"""

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

import torch
from claims_arms import CHOSEN, arms, outcome

HERE = Path(__file__).parent
SEED = 100
PLAIN = {"groups": "plain", "ranks-budget": "budget"}  # arm -> its reference for accuracy
CANDIDATES: dict[str, tuple[str, tuple[float, ...]]] = {  # setting: (the arm that decides it, values)
    "shrink_end": ("budget", (0.3, 0.5)),
    "group_share": ("groups", (0.05, 0.07)),
    "rank_share": ("ranks-budget", (0.01, 0.03)),
}


def tried(name: str, data: Path, runs: Path) -> dict[str, Any]:
    """Train the arm with each value of the setting; return its figures on the held-out images."""
    arm, values = CANDIDATES[name]
    found = {str(value): held_out(arm, {name: value}, data, runs / f"{name}-{value}") for value in values}
    plain = held_out(PLAIN[arm], {}, data, runs / "plain") if arm in PLAIN else None
    return {"arm": arm, "values": found, "plain": plain}


def held_out(arm: str, settings: dict[str, float], data: Path, folder: Path) -> dict[str, Any]:
    """Return the figures of the network that an arm trains, on the held-out images."""
    chosen = dataclasses.replace(CHOSEN, **settings)
    networks = outcome(arms(data, chosen)[arm], arm, SEED, folder / f"{arm}-{SEED}", split="validation")
    found: dict[str, Any] = networks[max(networks, key=["joint", "narrow"].index)]  # the last stage that there is
    print(arm, settings, found, flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--only", nargs="+", default=list(CANDIDATES), choices=list(CANDIDATES))
    parser.add_argument("--runs", type=Path, default=Path("runs/claims_choice"))
    parser.add_argument("--out", type=Path, default=HERE / "results")
    options = parser.parse_args()
    torch.set_num_threads(1)
    path = options.out / "claims_choice.json"
    result = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    for name in options.only:
        result[name] = tried(name, options.data, options.runs)
        path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
