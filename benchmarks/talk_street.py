"""Claim: `recipes/talk_street.yaml` runs every reshaping of the talk in under 10 minutes on 2 cores.

    python benchmarks/talk_street.py [folder, runs/benchmark-talk]

Runs the recipe's command in its own process into the folder, measures its wall and processor seconds, and stores from
the run's records: each stage's test mIoU, multiply-adds, parameters and milliseconds; each edit with its measured
exactness; each cut in training. The report stays in the folder.
"""

import dataclasses
import json
import os
from typing import Any

from result import write_result
from whole_run import whole_run

from prunus.records import EditRecord, EvaluationRecord, LatencyRecord, Record, ShrinkRecord, read


def networks(records: list[Record]) -> dict[str, dict[str, Any]]:
    """Return the figures of each network, in the order of the stages."""
    found: dict[str, dict[str, Any]] = {}
    for record in records:
        if isinstance(record, EvaluationRecord):
            names = ("metrics", "macs", "params", "training_seconds")
            found[record.model] = {name: getattr(record, name) for name in names} | {"median_ms": {}}
    for record in records:
        if isinstance(record, LatencyRecord):
            found[record.model]["median_ms"][f"{record.backend}, {record.threads} threads"] = record.median_ms
    return found


def kept(record: EditRecord | ShrinkRecord) -> dict[str, Any]:
    """Return the effect of an edit or a cut, and its exactness."""
    common = {name: getattr(record, name) for name in ("max_rel_diff", "max_rel_diff_float64")}
    if isinstance(record, EditRecord):
        return {"edit": record.edit, "exact": record.exact, **common}
    names = ("model", "epoch", "removed_groups", "params_before", "params_after")
    return {name: getattr(record, name) for name in names} | common


def main() -> None:
    folder, cost = whole_run("talk_street.yaml", "runs/benchmark-talk")
    records = list(read(folder))
    result = {
        "cores_used": len(os.sched_getaffinity(0)),
        **dataclasses.asdict(cost),
        "networks": networks(records),
        "edits": [kept(record) for record in records if isinstance(record, EditRecord)],
        "cuts": [kept(record) for record in records if isinstance(record, ShrinkRecord)],
    }
    write_result("talk_street", result)
    print(json.dumps({name: result[name] for name in ("seconds", "processor_seconds", "networks")}))


if __name__ == "__main__":
    main()
