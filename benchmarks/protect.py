"""Claim: what is protected falls less when the network is cut hard.

    python benchmarks/protect.py [--seeds 0 1 2] [--epochs 12] [--macs 0.15] [--weight 4]

ERFNet of half the width on street scenes of 128 x 64, to 15 % of its multiply-adds, without protection and with
`protect: {classes: [pedestrian]}`. A row (arm, seed, epochs, macs, weight) has the IoU of pedestrians and the mean of
wide and narrow on the test split, the interval of the drop, and the gate's verdict on pedestrians; rows are appended to
results/protect.jsonl as they come, and none is made twice.
"""

import argparse
import tempfile
from pathlib import Path

from frontier_rows import Row, Rows
from result import RESULTS

from prunus import pipeline, recipe
from prunus.records import EvaluationRecord, SliceRecord, read

TEXT = """\
# Street scenes to a small share of the multiply-adds.
name: protect
data:
  class_path: prunus.data.StreetData
  init_args: {{size: [64, 128], num_train: 160, num_validation: 10, num_test: 100}}
model:
  class_path: prunus.models.erfnet.ERFNet
  init_args: {{width_multiplier: 0.5}}
train: {{epochs: {epochs}, batch_size: 8, evaluate_every: {epochs}, threads: 1, optimizer: {{learning_rate: 2.0e-3}}}}
shrink: {{budget: {{macs: {macs}}}}}
gate: {{stop: false, gallery: 0, min_samples: 20}}
deploy: {{benchmark: {{backends: [onnxruntime], repeats: 2, warmup: 0, measure_memory: false}}, parity_samples: 1}}
report_samples: 0
"""


def led_to(text: str, seed: int) -> Row:
    """Return the IoU of pedestrians and the mean of wide and narrow, and what the gate says of pedestrians."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "recipe.yaml"
        path.write_text(text, encoding="utf-8")
        chosen = recipe.load(pipeline.Recipe, path, [f"seed={seed}", f"output={folder}/run"])
        found = read(pipeline.run(chosen))
    slices = {(record.slice, record.name): record for record in found if isinstance(record, SliceRecord)}
    person = slices["class", "pedestrian"]
    networks = {
        record.model: {"pedestrian": record.per_class["pedestrian"], **record.metrics, "macs": record.macs}
        for record in found
        if isinstance(record, EvaluationRecord)
    }
    return {"networks": networks, "drop": [person.low, person.high], "verdict": person.verdict}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--macs", type=float, default=0.15)
    parser.add_argument("--weight", type=float, default=4.0)
    options = parser.parse_args()
    rows = Rows(RESULTS / "protect.jsonl", ("arm", "seed", "epochs", "macs", "weight"))
    plain = TEXT.format(epochs=options.epochs, macs=options.macs)
    for seed in options.seeds:
        protect = f"protect: {{classes: [pedestrian], weight: {options.weight}}}\n"
        for arm, more in (("plain", ""), ("protected", protect)):
            figures = {"epochs": options.epochs, "macs": options.macs, "weight": options.weight}
            rows.once({"arm": arm, "seed": seed, **figures}, lambda text=plain + more, seed=seed: led_to(text, seed))


if __name__ == "__main__":
    main()
