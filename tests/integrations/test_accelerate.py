"""`Shrink` in a loop with accelerate, on traffic signs."""

import copy
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import signs
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import prunus

accelerate = pytest.importorskip("accelerate")
from prunus.errors import CheckpointError
from prunus.integrations.accelerate import Shrink

pytestmark = [
    pytest.mark.skipif(not signs.GTSRB.is_dir(), reason="gtsrb_small is not here"),
    pytest.mark.filterwarnings("ignore"),
]
EPOCHS, BATCHES = 5, 8


@pytest.fixture(autouse=True)
def one_accelerator():
    yield
    accelerate.state.AcceleratorState._reset_state(True)


def prepared(accumulate=1, clip=None, **settings):
    accelerator = accelerate.Accelerator(cpu=True, gradient_accumulation_steps=accumulate, **settings)
    model = signs.build()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=EPOCHS * BATCHES)
    loader = DataLoader(TensorDataset(*signs.images()), batch_size=4)
    model, optimizer, loader, scheduler = accelerator.prepare(model, optimizer, loader, scheduler)
    shrink = Shrink(
        accelerator, model, optimizer, signs.EXAMPLE, budget=prunus.Budget(macs=0.4),
        steps=EPOCHS * math.ceil(BATCHES / accumulate),
    )  # fmt: skip
    return accelerator, model, optimizer, loader, scheduler, shrink, clip


def train(loop, epochs, after=lambda: None):
    accelerator, model, optimizer, loader, scheduler, shrink, clip = loop
    for epoch in epochs:
        torch.manual_seed(epoch)
        for images, labels in loader:
            with accelerator.accumulate(model):
                accelerator.backward(nn.functional.cross_entropy(model(images), labels))
                if clip is not None and accelerator.sync_gradients:
                    accelerator.clip_grad_norm_(model.parameters(), clip)
                optimizer.step()
                shrink.step()
                after()
                scheduler.step()
                optimizer.zero_grad()
    return accelerator.unwrap_model(model, keep_fp32_wrapper=False)


def macs(model):
    return prunus.trace(model, signs.EXAMPLE).macs()


def test_the_budget_is_met_and_the_way_back_and_onnx(tmp_path):
    loop = prepared()
    model = train(loop, range(EPOCHS)).eval()
    assert 0.3 * macs(signs.build()) < macs(model) <= 0.4 * macs(signs.build())
    prunus.save(tmp_path / "narrow", model, loop[5].plan)
    loaded = prunus.load(tmp_path / "narrow", signs.build)
    assert torch.equal(loaded(signs.EXAMPLE), model(signs.EXAMPLE))
    path = prunus.export_onnx(loaded, signs.EXAMPLE, tmp_path / "narrow.onnx")
    assert prunus.check_parity(loaded, path, signs.EXAMPLE).passed


@pytest.mark.parametrize("epoch", [1, 3])  # before the budget is met, and after
def test_a_saved_state_goes_on_bit_for_bit(tmp_path, epoch):
    whole = train(prepared(), range(EPOCHS))
    first = prepared()
    train(first, range(epoch))
    first[0].save_state(tmp_path)
    second = prepared()
    second[0].load_state(tmp_path)
    model = train(second, range(epoch, EPOCHS))
    assert signs.equal(model, whole)


@pytest.mark.parametrize("settings", [{"accumulate": 2}, {"mixed_precision": "bf16"}, {"clip": 0.1}])
def test_one_step_per_optimizer_step_under_accumulation_bf16_and_clipping(settings):
    loop, seen = prepared(**settings), []
    clock = loop[5].shrinker.clock
    model = train(loop, range(EPOCHS), lambda: seen.append(clock.period * (clock.steps_per_period or 0) + clock.step))
    accumulate = settings.get("accumulate", 1)
    assert seen[-1] == EPOCHS * BATCHES // accumulate
    assert [seen[i] for i in range(accumulate - 1, len(seen), accumulate)] == list(range(1, seen[-1] + 1))
    assert macs(model) <= 0.4 * macs(signs.build())


def test_an_average_follows():
    loop = prepared()
    average = copy.deepcopy(loop[1])
    loop[5].follow(average)
    model = train(loop, range(EPOCHS))
    assert {n: v.shape for n, v in average.state_dict().items()} == {n: v.shape for n, v in model.state_dict().items()}


def test_a_state_without_shrink_is_refused(tmp_path):
    loop = prepared()
    loop[5].close()
    loop[0].save_state(tmp_path)
    with pytest.raises(CheckpointError, match="without Shrink"):
        prepared()[0].load_state(tmp_path)


SCRIPT = """
import sys
sys.path.insert(0, {tests!r})
from prunus import compat
import test_accelerate
test_accelerate.prepared()
"""


def test_several_processes_are_refused_by_name(tmp_path):
    (tmp_path / "train.py").write_text(SCRIPT.format(tests=str(Path(__file__).parent)))
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "29541"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    result = subprocess.run([*command, tmp_path / "train.py"], capture_output=True, text=True, env=environment)
    assert result.returncode != 0
    assert "Shrink cannot shrink with 2 processes" in result.stderr
