"""`Shrink` in Lightning's Trainer, on traffic signs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import signs
import torch
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

import prunus

lightning = pytest.importorskip("lightning")
from lightning.pytorch.callbacks import Callback, EarlyStopping, EMAWeightAveraging, ModelCheckpoint

from prunus.errors import CheckpointError, TrainingError
from prunus.integrations.lightning import Shrink, load_narrow

pytestmark = [
    pytest.mark.skipif(not signs.GTSRB.is_dir(), reason="gtsrb_small is not here"),
    pytest.mark.filterwarnings("ignore"),
]
EPOCHS = 5


class Classifier(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.network = signs.build()

    def training_step(self, batch, index):
        images, labels = batch
        return nn.functional.cross_entropy(self.network(images), labels)

    def validation_step(self, batch, index):
        self.log("accuracy", (self.network(batch[0]).argmax(1) == batch[1]).float().mean())

    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(self.parameters(), lr=1e-2)
        return [optimizer], [torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=EPOCHS)]


class Stopped(Exception):  # noqa: N818
    pass


class Stop(Callback):
    def __init__(self, epoch):
        self.epoch = epoch

    def on_train_batch_start(self, trainer, *others):
        torch.manual_seed(trainer.global_step)  # Lightning's checkpoints do not keep the random state

    def on_train_epoch_start(self, trainer, module):
        if trainer.current_epoch == self.epoch:
            raise Stopped


def loader(**settings):
    return DataLoader(TensorDataset(*signs.images()), batch_size=4, **settings)


def fit(folder, shrink, *callbacks, module=None, ckpt_path=None, data=None, **changes):
    settings = {
        "max_epochs": EPOCHS, "accelerator": "cpu", "devices": 1, "logger": False, "enable_progress_bar": False,
        "enable_model_summary": False, "default_root_dir": folder, "num_sanity_val_steps": 0,
        "enable_checkpointing": any(isinstance(each, ModelCheckpoint) for each in callbacks),
    }  # fmt: skip
    trainer = lightning.Trainer(callbacks=[shrink, *callbacks], **settings | changes)
    module = Classifier() if module is None else module
    torch.manual_seed(0)
    trainer.fit(module, loader() if data is None else data, loader(), ckpt_path=ckpt_path)
    return trainer, module


def shrink(**changes):
    return Shrink(signs.EXAMPLE, **{"budget": prunus.Budget(macs=0.4), "part": "network"} | changes)


def macs(module):
    return prunus.trace(module.network, signs.EXAMPLE).macs()


WIDE = macs(Classifier()) if signs.GTSRB.is_dir() else 0


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    shrinking = shrink()
    _, module = fit(tmp_path_factory.mktemp("done"), shrinking, Stop(-1))
    return module, shrinking


def test_the_budget_is_met(done):
    assert 0.3 * WIDE < macs(done[0]) <= 0.4 * WIDE
    assert "on_load_checkpoint" not in vars(done[0])


def test_the_way_back_and_onnx(done, tmp_path):
    module, shrinking = done
    network = module.network.eval()
    prunus.save(tmp_path / "narrow", network, shrinking.plan)
    loaded = prunus.load(tmp_path / "narrow", signs.build)
    assert torch.equal(loaded(signs.EXAMPLE), network(signs.EXAMPLE))
    path = prunus.export_onnx(loaded, signs.EXAMPLE, tmp_path / "narrow.onnx")
    assert prunus.check_parity(loaded, path, signs.EXAMPLE).passed


@pytest.mark.parametrize("epoch", [1, 3])  # before the first cut, and between two
def test_a_stopped_training_goes_on_bit_for_bit(done, tmp_path, epoch):
    saving = {"dirpath": tmp_path, "save_last": True}
    with pytest.raises(Stopped):
        fit(tmp_path, shrink(), Stop(epoch), ModelCheckpoint(**saving))
    again = shrink()
    _, module = fit(tmp_path, again, Stop(-1), ckpt_path=str(tmp_path / "last.ckpt"))
    assert again.plan == done[1].plan
    assert signs.equal(module, done[0])


class Count(Callback):
    def __init__(self, shrinking):
        self.shrinking, self.seen = shrinking, []

    def on_train_batch_end(self, trainer, module, *others):
        clock = self.shrinking._running.now().clock
        self.seen.append((trainer.global_step, clock.period * (clock.steps_per_period or 0) + clock.step))


@pytest.mark.parametrize(
    "changes", [{"accumulate_grad_batches": 2}, {"precision": "bf16-mixed"}, {"gradient_clip_val": 0.1}]
)
def test_one_step_per_optimizer_step_under_accumulation_bf16_and_clipping(tmp_path, changes):
    shrinking = shrink()
    count = Count(shrinking)
    _, module = fit(tmp_path, shrinking, count, **changes)
    assert all(steps == own for steps, own in count.seen)
    assert macs(module) <= 0.4 * WIDE


def test_an_average_that_a_callback_keeps_follows_and_is_resumed(tmp_path):
    def average():
        return EMAWeightAveraging(decay=0.5)

    _, whole = fit(tmp_path / "whole", shrink(), Stop(-1), average())
    assert macs(whole) <= 0.4 * WIDE
    saving = {"dirpath": tmp_path, "save_last": True}
    with pytest.raises(Stopped):
        fit(tmp_path, shrink(), Stop(3), average(), ModelCheckpoint(**saving))
    _, module = fit(tmp_path, shrink(), Stop(-1), average(), ckpt_path=str(tmp_path / "last.ckpt"))
    assert signs.equal(module, whole)


class Score(Callback):
    """Scores that are best while the network is wide."""

    def on_validation_epoch_end(self, trainer, module):
        module.log("score", [0.9, 0.8, 0.1, 0.1, 0.2][trainer.current_epoch])


def test_the_best_checkpoint_is_one_of_the_final_width_and_stopping_waits(tmp_path):
    best = ModelCheckpoint(dirpath=tmp_path, monitor="score", mode="max", save_top_k=1)
    stop = EarlyStopping(monitor="score", mode="max", patience=2)
    trainer, module = fit(tmp_path, shrink(end=0.8), Score(), best, stop)
    assert trainer.current_epoch == EPOCHS
    assert best.best_model_score == pytest.approx(0.2)
    loaded = load_narrow(Classifier(), best.best_model_path, part="network")
    assert signs.equal(loaded, module)


class Stream(IterableDataset):
    def __iter__(self):
        return iter(zip(*signs.images(), strict=True))


def test_a_training_whose_length_in_steps_is_not_known(tmp_path):
    _, module = fit(tmp_path, shrink(), data=DataLoader(Stream(), batch_size=4))
    assert macs(module) <= 0.4 * WIDE
    with pytest.raises(TrainingError, match="max_epochs or max_steps"):
        fit(tmp_path, shrink(), data=DataLoader(Stream(), batch_size=4), max_epochs=-1)


def test_what_cannot_be_supported_is_refused_by_name(tmp_path):
    module = Classifier()
    module.automatic_optimization = False
    with pytest.raises(TrainingError, match="automatic_optimization=False"):
        fit(tmp_path, shrink(), module=module)
    plain = ModelCheckpoint(dirpath=tmp_path, save_last=True)
    fit(tmp_path, Callback(), plain, max_epochs=1)
    with pytest.raises(CheckpointError, match="written without Shrink"):
        fit(tmp_path, shrink(), ckpt_path=str(tmp_path / "last.ckpt"))


SCRIPT = """
import hashlib, pathlib, sys
sys.path.insert(0, {tests!r})
from prunus import compat
import test_lightning as here

if __name__ == "__main__":
    trainer, module = here.fit({folder!r}, here.shrink(), accelerator="cpu", devices=2, strategy="ddp")
    weights = hashlib.sha256(b"".join(p.detach().numpy().tobytes() for p in module.parameters())).hexdigest()
    pathlib.Path({folder!r}, f"rank{{trainer.global_rank}}.txt").write_text(f"{{here.macs(module)}} {{weights}}")
"""


def test_two_processes_hold_the_same_network(tmp_path):
    script = tmp_path / "train.py"
    script.write_text(SCRIPT.format(tests=str(Path(__file__).parent), folder=str(tmp_path)))
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    result = subprocess.run([sys.executable, script], capture_output=True, text=True, env=environment)
    assert result.returncode == 0, result.stderr[-3000:]
    first, second = ((tmp_path / f"rank{rank}.txt").read_text() for rank in range(2))
    assert first == second
    assert int(first.split()[0]) <= 0.4 * WIDE


def test_a_checkpoint_that_cannot_be_loaded_is_named(tmp_path):
    path = tmp_path / "best.ckpt"
    with pytest.raises(CheckpointError, match=r"best\.ckpt cannot be read"):
        load_narrow(Classifier(), path)
    path.write_bytes(b"no checkpoint")
    with pytest.raises(CheckpointError, match=r"best\.ckpt cannot be read"):
        load_narrow(Classifier(), path)
    torch.save({"state_dict": Classifier().state_dict()}, path)
    with pytest.raises(CheckpointError, match="without Shrink"):
        load_narrow(Classifier(), path)
    torch.save({"state_dict": Classifier(), "prunus_shrinker": {}}, path)
    with pytest.raises(CheckpointError, match="runs code when it is read"):
        load_narrow(Classifier(), path)
