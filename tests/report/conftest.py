import dataclasses
import math
import struct
import zlib
from pathlib import Path
from types import SimpleNamespace

import pytest

from prunus import records
from prunus.records import Recorder

CLASS_NAMES = ("road", "pavement", "building", "sky", "tree", "pole", "sign", "car", "pedestrian")
PALETTE = (
    (128, 64, 128), (244, 35, 232), (70, 70, 70), (70, 130, 180), (107, 142, 35),
    (153, 153, 153), (220, 220, 0), (0, 0, 142), (220, 20, 60),
)  # fmt: skip
EPOCHS = 14
MACS, PARAMS, CHANNELS = 1_204_331_520, 2_063_086, 3_008
INPUT = (1, 3, 128, 256)


def png(width: int, height: int, colour_at) -> bytes:
    """A PNG from the format's definition: what the report embeds needs no image library to make."""
    rows = b"".join(b"\0" + bytes(value for x in range(width) for value in colour_at(x, y)) for y in range(height))
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows)),
    ]
    chunks.append((b"IEND", b""))
    body = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + body


def street(index: int, wobble: float):
    """A street of four classes; `wobble` moves their borders, as a worse network would."""

    def class_at(x: int, y: int) -> int:
        shift = wobble * math.sin(0.7 * x + index)
        if y + shift > 40 + abs(x - 64) * 0.25:
            return 0 if abs(x - 64 + shift) > 14 or y < 46 else 7
        if y + shift > 34:
            return 1
        return 2 if (x // (13 + index)) % 2 and y + 2 * shift > 12 + 5 * (x // 26 % 3) else 3

    return class_at


def images(folder: Path, count: int) -> list[records.SampleRecord]:
    (folder / "images").mkdir(parents=True, exist_ok=True)
    found = []
    for index in range(count):
        paths = {}
        for name, wobble in (("image", 0.0), ("truth", 0.0), ("wide", 0.8), ("narrow", 1.2)):
            class_at = street(index, wobble)
            dim = 0.75 if name == "image" else 1.0

            def colour_at(x: int, y: int, class_at=class_at, dim=dim):
                noise = (x * 7 + y * 13) % 23 if dim < 1 else 0
                return tuple(min(255, int(dim * value) + noise) for value in PALETTE[class_at(x, y)])

            paths[name] = f"images/{index}_{name}.png"
            (folder / paths[name]).write_bytes(png(128, 64, colour_at))
        found.append(records.SampleRecord(index=index, **paths))
    return found


def run_record(**changes) -> records.RunRecord:
    fields = {
        "name": "street_erfnet",
        "command": "prunus run recipes/street_erfnet.yaml train.epochs=14",
        "seed": 0,
        "recipe": {"budget": {"macs": 0.4}, "train": {"epochs": EPOCHS}},
        "versions": {"prunus": "0.1.0", "torch": "2.13.0", "python": "3.11.2"},
        "hardware": {"processor": "2 cores of an x86-64 machine", "memory": "8 GB"},
        "started": "2026-11-22T21:40:00+00:00",
        "class_names": CLASS_NAMES,
        "palette": PALETTE,
        "input_shape": INPUT,
    }
    return records.RunRecord(**fields | changes)


def left(epoch: int) -> float:
    """The share of channels that is left after `epoch`."""
    return 1 - 0.42 * min(1.0, max(0, epoch - 1) / 9)


def epoch_record(model: str, epoch: int) -> records.EpochRecord:
    share = left(epoch) if model == "narrow" else 1.0
    miou = 0.72 * (1 - math.exp(-epoch / 3.5)) + (0.003 * (epoch % 3) if model == "narrow" else 0.004)
    return records.EpochRecord(
        model=model, epoch=epoch, epochs=EPOCHS, loss=1.7 * math.exp(-epoch / 5) + 0.2,
        metrics={"miou": miou, "pixel_accuracy": 0.6 + miou / 2},
        learning_rate=5e-4 * (1 - epoch / 15) ** 0.9,
        seconds=10.9 * (0.35 + 0.65 * share) + 0.2 * (epoch % 4), macs=int(MACS * share**1.9),
        params=int(PARAMS * share**2), channels=int(CHANNELS * share), pressed=int(1500 * share),
    )  # fmt: skip


def shrink_records() -> list[records.ShrinkRecord]:
    found = []
    for epoch in range(2, 12, 2):
        before, after = left(epoch - 1), left(epoch + 1)
        found.append(
            records.ShrinkRecord(
                epoch=epoch, removed_groups=int(CHANNELS * (before - after)), seconds=0.41,
                macs_before=int(MACS * before**1.9), macs_after=int(MACS * after**1.9),
                params_before=int(PARAMS * before**2), params_after=int(PARAMS * after**2),
                max_rel_diff=3.1e-7 + epoch * 1e-8,
            )
        )  # fmt: skip
    return found


def widths_record() -> records.WidthsRecord:
    layers, initial, learned = [], [], []
    plan = [("encoder.down.0", 13, 0), ("encoder.down.1", 48, 0)]
    plan += [("encoder.stage1", 64, 5), ("encoder.down.2", 64, 0), ("encoder.stage2", 128, 8)]
    plan += [
        ("decoder.up1", 64, 0),
        ("decoder.stage1", 64, 2),
        ("decoder.up2", 16, 0),
        ("decoder.stage2", 16, 2),
    ]
    for name, units, blocks in plan:
        for block in range(max(blocks, 1)):
            for convolution in ("3x1_1", "1x3_1", "3x1_2", "1x3_2") if blocks else ("conv",):
                layers.append(f"{name}.{block}.{convolution}" if blocks else name)
                initial.append(units)
                keep = 0.58 + 0.3 * math.sin(3 * len(layers)) if convolution != "1x3_2" else 0.75
                learned.append(0 if layers[-1].startswith("encoder.stage2.5.3x1") else round(units * keep))
    return records.WidthsRecord(layers=tuple(layers), initial=tuple(initial), learned=tuple(learned))


def evaluation_record(model: str) -> records.EvaluationRecord:
    wide = (0.947, 0.741, 0.862, 0.951, 0.802, 0.331, 0.4523, 0.7921, None)
    change = (-0.002, -0.011, 0.003, 0.0, -0.006, 0.012, -0.021, -0.004, 0)
    scores = [
        None if score is None else round(score + (step if model == "narrow" else 0), 6)
        for score, step in zip(wide, change, strict=True)
    ]
    known = [score for score in scores if score is not None]
    return records.EvaluationRecord(
        model=model, split="test", images=200, per_class=dict(zip(CLASS_NAMES, scores, strict=True)),
        metrics={"miou": sum(known) / len(known), "pixel_accuracy": 0.9214 - 0.003 * (model == "narrow")},
        macs=MACS if model == "wide" else 457_103_411, params=PARAMS if model == "wide" else 694_022,
        training_seconds=161.2 if model == "wide" else 124.8,
    )  # fmt: skip


def latency_record(model: str, backend: str, median: float) -> records.LatencyRecord:
    return records.LatencyRecord(
        model=model, backend=backend, device="cpu", input_shape=INPUT, threads=2, warmup=20, repeats=200,
        median_ms=median, p95_ms=median * 1.17 + 0.4, precision="float32",
        peak_memory_mb=None if backend == "torch" else 96.4 + median,
    )  # fmt: skip


def parity_record(model: str, backend: str, **changes) -> records.ParityRecord:
    fields = {
        "model": model, "backend": backend, "samples": 16, "max_abs_diff": 4.2e-6, "max_rel_diff": 6.1e-7,
        "argmax_agreement": 0.999997, "tolerance": 1e-4, "passed": True,
    }  # fmt: skip
    return records.ParityRecord(**fields | changes)


def gate_records() -> list[records.Record]:
    """A comparison whose worst slice fell."""
    found: list[records.Record] = [
        records.GateRecord(
            split="test", images=120, metric="miou", max_drop=0.5, min_samples=30, confidence=0.95, passed=False,
            calibration_wide=0.0312, calibration_narrow=0.0458,
        )
    ]  # fmt: skip
    rows = (
        ("class in condition", "pedestrian, night", 48, 0.4412, 0.3127, 0.0811, 0.1702, "fell"),
        ("class", "pedestrian", 211, 0.5513, 0.5411, -0.0021, 0.0233, "in doubt"),
        ("all", "all", 120, 0.6121, 0.6109, -0.0011, 0.0035, "kept"),
        ("condition", "fog", 9, 0.4021, None, None, None, "too small"),
    )
    names = ("slice", "name", "samples", "wide", "narrow", "low", "high", "verdict")
    found += [records.SliceRecord(**dict(zip(names, row, strict=True))) for row in rows]
    for model, precision in (("wide", (1.0, 0.93, 0.71)), ("narrow", (1.0, 0.9, 0.62))):
        found.append(records.CurveRecord(model=model, name="pedestrian", recall=(0.1, 0.5, 0.8), precision=precision))
    found.append(records.RobustnessRecord(change="noise", strength=0.05, wide=0.5731, narrow=0.5522))
    return found


def complete_run(folder: Path) -> list[records.Record]:
    """The records of a whole run, its images written to `folder`."""
    widths = widths_record()
    found: list[records.Record] = [run_record()]
    found += [epoch_record(model, epoch) for model in ("wide", "narrow") for epoch in range(1, EPOCHS + 1)]
    found += shrink_records()
    found += [widths, evaluation_record("wide"), evaluation_record("narrow")]
    found.append(
        records.RemovalRecord(
            max_rel_diff=4.4e-7, max_abs_diff=9.1e-6, removed=612, refused=9, params_before=694_022,
            params_after=201_337, macs_before=457_103_411, macs_after=139_220_113,
        )
    )  # fmt: skip
    for layer, built, kept in zip(widths.layers, widths.initial, widths.learned, strict=True):
        summary = f"{layer}: {built} channels to {kept}"
        found.append(records.EditRecord(edit="RemoveChannels", summary=summary, exact=True, max_rel_diff=None))
    fused = "fuse 52 batch normalisations into their convolutions"
    found.append(records.EditRecord(edit="FuseBatchNorm", summary=fused, exact=True, max_rel_diff=8.3e-7))
    medians = {"onnxruntime": (21.34, 9.871), "openvino": (17.02, 8.113), "torch": (48.5, 27.25)}
    for backend, pair in medians.items():
        for model, median in zip(("wide", "narrow"), pair, strict=True):
            found.append(latency_record(model, backend, median))
            if backend != "torch":
                found.append(parity_record(model, backend))
    found += images(folder, 3)
    found += gate_records()
    found += [dataclasses.replace(sample, disagreement=0.5) for sample in images(folder, 2)]
    found.append(records.NoteRecord(text="TensorRT was not measured: no NVIDIA GPU on this machine."))
    return found


def write_records(folder: Path, found: list[records.Record]) -> Path:
    recorder = Recorder(folder)
    for record in found:
        recorder.write(record)
    return folder


@pytest.fixture(scope="session")
def whole_run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "street_erfnet"
    return write_records(folder, complete_run(folder))


@pytest.fixture(scope="session")
def make():
    """The makers of records and run folders above."""
    names = ("run_record", "epoch_record", "shrink_records", "widths_record", "evaluation_record")
    names += ("latency_record", "parity_record", "gate_records", "complete_run", "write_records", "images", "png")
    return SimpleNamespace(**{name: globals()[name] for name in names}, EPOCHS=EPOCHS, MACS=MACS)
