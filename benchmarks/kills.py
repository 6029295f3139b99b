"""Claim: a training survives 50 of 50 kills at random moments and loses no state that was reported as saved.

    python benchmarks/kills.py

Runs tests/faults/killed.py and stores its figures: the training of a tiny shrinking network is killed by SIGKILL at
random moments, every second time while it writes a checkpoint, and resumes; its final state is compared bit by bit
with that of an undisturbed training.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

from result import write_result

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tests" / "faults"))

import killed  # noqa: E402 - after its folder is on the path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        told = killed.main(Path(folder), options.kills, options.seed)
    write_result("kills", {"seed": options.seed, **told})
    print(json.dumps(told))


if __name__ == "__main__":
    main()
