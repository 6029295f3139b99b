"""Claim: a training survives 50 of 50 kills at random moments and loses nothing that was reported saved.

    python benchmarks/kills.py

What tests/faults/killed.py does, with its figures kept: a tiny network shrinks while it trains, is killed by SIGKILL at
random moments, every second time while it writes a checkpoint, and goes on; what it ends at is compared bit by bit
with the undisturbed training.
"""

import argparse
import datetime
import json
import sys
import tempfile
from pathlib import Path

from prunus.pipeline.environment import hardware, versions

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tests" / "faults"))

import killed  # noqa: E402 - only now can it be found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        told = killed.main(Path(folder), options.kills, options.seed)
    result = {
        "date": datetime.date.today().isoformat(),
        "command": f"python benchmarks/kills.py --kills {options.kills} --seed {options.seed}",
        "versions": versions(),
        "hardware": hardware(),
        **told,
    }
    (HERE / "results/kills.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(told))


if __name__ == "__main__":
    main()
