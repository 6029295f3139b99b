"""`Shrink` in the Hugging Face Trainer, on traffic signs."""

import copy
import os
import subprocess
import sys
from pathlib import Path

import pytest
import signs
import torch
from torch import nn

import prunus

transformers = pytest.importorskip("transformers")
from prunus.errors import CheckpointError, TrainingError
from prunus.integrations.transformers import Shrink

pytestmark = [
    pytest.mark.skipif(not signs.GTSRB.is_dir(), reason="gtsrb_small is not here"),
    pytest.mark.filterwarnings("ignore"),
]


class Classifier(nn.Module):
    """In the form that the Trainer expects."""

    def __init__(self):
        super().__init__()
        self.network = signs.build()

    def forward(self, images, labels):
        scores = self.network(images)
        return {"loss": nn.functional.cross_entropy(scores, labels), "logits": scores}


class Stopped(Exception):  # noqa: N818
    pass


class Stop(transformers.TrainerCallback):
    def __init__(self, at):
        self.at = at

    def on_save(self, args, state, control, **others):
        if state.global_step == self.at:
            raise Stopped


def data():
    return [{"images": image, "labels": label} for image, label in zip(*signs.images(), strict=True)]


def trainer(folder, shrink, *callbacks, model=None, **changes):
    settings = {
        "num_train_epochs": 5, "per_device_train_batch_size": 4, "learning_rate": 1e-2, "report_to": [],
        "use_cpu": True, "disable_tqdm": True, "dataloader_pin_memory": False, "save_strategy": "epoch", "seed": 3,
    }  # fmt: skip
    arguments = transformers.TrainingArguments(output_dir=str(folder), **settings | changes)
    return transformers.Trainer(
        model=Classifier() if model is None else model,
        args=arguments,
        train_dataset=data(),
        eval_dataset=data(),
        callbacks=[shrink, *callbacks],
        compute_metrics=lambda found: {"accuracy": float((found.predictions.argmax(1) == found.label_ids).mean())},
    )


def shrink(**changes):
    return Shrink(signs.EXAMPLE, **{"budget": prunus.Budget(macs=0.4), "part": "network"} | changes)


def macs(model):
    return prunus.trace(model.network, signs.EXAMPLE).macs()


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    shrinking = shrink()
    training = trainer(tmp_path_factory.mktemp("done"), shrinking)
    training.train()
    return training, shrinking


def test_the_budget_is_met_and_the_model_stays_the_same_object(done):
    training, _ = done
    wide = macs(Classifier())
    assert 0.3 * wide < macs(training.model) <= 0.4 * wide
    assert training.model is training.callback_handler.model


def test_the_way_back_and_onnx(done, tmp_path):
    training, shrinking = done
    network = training.model.network.eval()
    prunus.save(tmp_path / "narrow", network, shrinking.plan)
    loaded = prunus.load(tmp_path / "narrow", signs.build)
    assert torch.equal(loaded(signs.EXAMPLE), network(signs.EXAMPLE))
    path = prunus.export_onnx(loaded, signs.EXAMPLE, tmp_path / "narrow.onnx")
    assert prunus.check_parity(loaded, path, signs.EXAMPLE).passed


@pytest.mark.parametrize("epoch", [1, 3])  # before the first cut, and between two
def test_a_stopped_training_goes_on_bit_for_bit(done, tmp_path, epoch):
    with pytest.raises(Stopped):
        trainer(tmp_path, shrink(), Stop(8 * epoch)).train()
    again = shrink()
    training = trainer(tmp_path, again)
    training.train(resume_from_checkpoint=True)
    assert again.plan == done[1].plan
    assert signs.equal(training.model, done[0].model)


@pytest.mark.parametrize("changes", [{"gradient_accumulation_steps": 2}, {"bf16": True}, {"max_grad_norm": 0.1}])
def test_one_step_per_optimizer_step_under_accumulation_bf16_and_clipping(tmp_path, changes):
    shrinking = shrink()
    training = trainer(tmp_path, shrinking, save_strategy="no", **changes)
    seen = []
    inner = shrinking._running

    class Count(transformers.TrainerCallback):
        def on_step_end(self, *arguments, **others):
            clock = inner.now().clock
            seen.append(clock.period * (clock.steps_per_period or 0) + clock.step)

    training.add_callback(Count())
    training.train()
    assert seen == list(range(1, training.state.max_steps + 1))
    assert macs(training.model) <= 0.4 * macs(Classifier())


def test_an_average_follows(tmp_path):
    model, shrinking = Classifier(), shrink()
    average = copy.deepcopy(model.network)
    shrinking.follow(average)
    trainer(tmp_path, shrinking, model=model, save_strategy="no").train()
    assert {n: v.shape for n, v in average.state_dict().items()} == {
        n: v.shape for n, v in model.network.state_dict().items()
    }


def test_the_best_model_at_the_end_is_one_of_the_final_width(tmp_path):
    shrinking, values = shrink(end=0.8), iter([0.9, 0.8, 0.7, 0.1, 0.2])
    training = trainer(
        tmp_path, shrinking, eval_strategy="epoch", load_best_model_at_end=True, metric_for_best_model="score"
    )
    training.compute_metrics = lambda found: {"score": next(values)}
    training.train()
    assert training.state.best_metric == 0.2
    assert macs(training.model) <= 0.4 * macs(Classifier())


class Fsdp:
    value = "not_parallel"


@pytest.mark.parametrize(
    ("changes", "told"), [({"auto_find_batch_size": True}, "auto_find_batch_size"), ({"fsdp": "full_shard"}, "FSDP")]
)
def test_what_cannot_be_supported_is_refused_by_name(tmp_path, changes, told):
    training = trainer(tmp_path, shrink(), save_strategy="no")
    for name, value in changes.items():
        setattr(training.args, name, value)
    with pytest.raises(TrainingError, match=told):
        training.callback_handler.on_train_begin(training.args, training.state, training.control)


SCRIPT = """
import sys
sys.path.insert(0, {tests!r})
from prunus import compat
import test_transformers as here
here.trainer({folder!r}, here.shrink(), save_strategy="no").train()
"""


def test_several_processes_are_refused_by_name(tmp_path):
    (tmp_path / "train.py").write_text(SCRIPT.format(tests=str(Path(__file__).parent), folder=str(tmp_path)))
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "29547"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    result = subprocess.run([*command, tmp_path / "train.py"], capture_output=True, text=True, env=environment)
    assert result.returncode != 0
    assert "several processes" in result.stderr


def test_other_steps_and_foreign_weights_are_refused(tmp_path):
    with pytest.raises(Stopped):
        trainer(tmp_path, shrink(), Stop(24)).train()
    with pytest.raises(CheckpointError, match="of a training of 40 steps, and this one has 80"):
        trainer(tmp_path, shrink(), num_train_epochs=10).train(resume_from_checkpoint=True)
    (tmp_path / "checkpoint-24" / "prunus_shrinker.safetensors").unlink()
    with pytest.raises(CheckpointError, match="without a saved Shrink state"):
        trainer(tmp_path, shrink()).train(resume_from_checkpoint=str(tmp_path / "checkpoint-24"))
