"""A trained network shrinks to a budget in the loops of other trainers: its accuracy beside the wide network's.

    python benchmarks/trainers.py --data GTSRB_SMALL --runs DIR [--epochs 8] [--macs 0.3] [--seeds 0 1] [--trainers ...]

The residual network of recipes/gtsrb_small.yaml is first trained in a plain loop; every arm starts from its weights and
trains for as many epochs again, in a plain loop, Lightning, the Hugging Face Trainer or accelerate: once as it is
("wide"), and once with the two added lines ("narrow"). All arms use AdamW with a cosine schedule, and the same batch
size and augmentation. The last weights are evaluated on the test split; nothing was chosen by these figures. Rows are
appended to results/trainers.jsonl and never repeated.
"""

import argparse
import functools
import importlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from frontier_rows import Row, Rows, told
from result import RESULTS, write_result
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR
from torch.utils.data import DataLoader, Dataset

import prunus
from prunus import recipe
from prunus.data.interface import Split
from prunus.pipeline import Recipe

RECIPE = Path(__file__).parents[1] / "recipes" / "gtsrb_small.yaml"
KEY = ("trainer", "arm", "seed", "epochs", "budget")
BATCH, RATE, DECAY = 32, 2e-3, 5e-2


class Augmented(Dataset[tuple[Tensor, int]]):
    """A training split that is augmented anew each time all its images have been read."""

    def __init__(self, split: Split) -> None:
        self.split, self.read = split, 0

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        self.split.set_epoch(self.read // len(self))
        self.read += 1
        return self.split[index]


class Job:
    """What all trainers share: images, network, optimizer, schedule and budget."""

    def __init__(self, options: argparse.Namespace, seed: int) -> None:
        torch.manual_seed(seed)
        settings = recipe.load(Recipe, RECIPE, [f"data.root={options.data}", f"seed={seed}"])
        self.data, self.task = settings.data, settings.task.bind(settings.data)
        self.build = functools.partial(settings.model, num_classes=settings.data.num_classes)
        self.train, self.epochs = Augmented(settings.data.train()), options.epochs
        self.budget, self.example = prunus.Budget(macs=options.macs), self.train[0][0][None]
        self.folder = options.runs / f"seed{seed}"
        self.steps = self.epochs * (len(self.train) // BATCH)

    def loader(self) -> DataLoader[Any]:
        """Return the training batches, in a random order."""
        return DataLoader(self.train, batch_size=BATCH, shuffle=True, drop_last=True)

    def loss(self, scores: Tensor, labels: Tensor) -> Tensor:
        """Return the mean loss of a batch."""
        return nn.functional.cross_entropy(scores, labels, label_smoothing=0.1)

    def optimizer(self, model: nn.Module) -> tuple[torch.optim.Optimizer, CosineAnnealingLR]:
        """Return the optimizer and the schedule, which is stepped with it."""
        optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=DECAY)
        return optimizer, CosineAnnealingLR(optimizer, self.steps)

    @torch.no_grad()
    def accuracy(self, model: nn.Module) -> float:
        """Return the share of the test images whose highest score is their class."""
        model.eval()
        split = self.data.test()
        batches: Iterator[Any] = iter(DataLoader(split, batch_size=256))
        return sum(int((model(images).argmax(1) == labels).sum()) for images, labels in batches) / len(split)


def plain(job: Job, model: nn.Module, shrinks: bool) -> nn.Module:
    """Train in a loop of one's own."""
    optimizer, schedule = job.optimizer(model)
    shrinker = prunus.Shrinker(model, optimizer, job.example, budget=job.budget, steps=job.steps) if shrinks else None
    model.train()
    for _ in range(job.epochs):
        for images, labels in job.loader():
            optimizer.zero_grad()
            job.loss(model(images), labels).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            if shrinker is not None:
                shrinker.step()
    return model


def lightning(job: Job, model: nn.Module, shrinks: bool) -> nn.Module:
    """Train in Lightning."""
    from prunus.integrations.lightning import Shrink

    library = importlib.import_module("lightning")

    class Module(library.LightningModule):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.network = model

        def training_step(self, batch: Any, index: int) -> Tensor:
            return job.loss(self.network(batch[0]), batch[1])

        def configure_optimizers(self) -> Any:
            optimizer, schedule = job.optimizer(self)
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    callbacks = [Shrink(job.example, budget=job.budget, part="network")] if shrinks else []
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    library.Trainer(max_epochs=job.epochs, accelerator="cpu", callbacks=callbacks, **quiet).fit(Module(), job.loader())
    return model


def transformers(job: Job, model: nn.Module, shrinks: bool) -> nn.Module:
    """Train in the Hugging Face Trainer."""
    from prunus.integrations.transformers import Shrink

    library = importlib.import_module("transformers")

    class Classifier(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = model

        def forward(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
            scores = self.network(images)
            return {"loss": job.loss(scores, labels), "logits": scores}

    def collate(samples: list[tuple[Tensor, int]]) -> dict[str, Tensor]:
        images, labels = zip(*samples, strict=True)
        return {"images": torch.stack(images), "labels": torch.as_tensor(labels)}

    arguments = library.TrainingArguments(
        str(job.folder / "trainer"),
        num_train_epochs=job.epochs,
        per_device_train_batch_size=BATCH,
        dataloader_drop_last=True,
        max_grad_norm=0.0,
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
        report_to=[],
        use_cpu=True,
    )
    whole = Classifier()
    library.Trainer(
        model=whole,
        args=arguments,
        train_dataset=job.train,
        data_collator=collate,
        optimizers=job.optimizer(whole),
        callbacks=[Shrink(job.example, budget=job.budget, part="network")] if shrinks else [],
    ).train()
    return model


def accelerate(job: Job, model: nn.Module, shrinks: bool) -> nn.Module:
    """Train in a loop with accelerate."""
    from prunus.integrations.accelerate import Shrink

    accelerator = importlib.import_module("accelerate").Accelerator(cpu=True)
    optimizer, schedule = job.optimizer(model)
    wrapped, optimizer, loader, schedule = accelerator.prepare(model, optimizer, job.loader(), schedule)
    shrink = None
    if shrinks:
        shrink = Shrink(accelerator, wrapped, optimizer, job.example, budget=job.budget, steps=job.steps)
    wrapped.train()
    for _ in range(job.epochs):
        for images, labels in loader:
            with accelerator.accumulate(wrapped):
                accelerator.backward(job.loss(wrapped(images), labels))
                optimizer.step()
                schedule.step()
                if shrink is not None:
                    shrink.step()
                optimizer.zero_grad()
    network: nn.Module = accelerator.unwrap_model(wrapped, keep_fp32_wrapper=False)
    return network


LOOPS: dict[str, Callable[[Job, nn.Module, bool], nn.Module]] = {
    "plain": plain,
    "lightning": lightning,
    "transformers": transformers,
    "accelerate": accelerate,
}


def trained(job: Job) -> nn.Module:
    """Return the network from which all arms start; it is trained once per seed."""
    model, path = job.build(), job.folder / "start.pt"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(plain(job, model, False).state_dict(), path)
    model.load_state_dict(torch.load(path, weights_only=True))
    return model


def row(options: argparse.Namespace, trainer: str, arm: str, seed: int) -> Row:
    """Train an arm and return its figures."""
    job = Job(options, seed)
    start = trained(job)
    before, macs = job.accuracy(start), prunus.trace(start, job.example).macs()
    torch.manual_seed(seed)  # whether or not the start was trained just now
    model = LOOPS[trainer](job, start.train(), arm == "narrow")
    narrow = prunus.trace(model, job.example).macs()
    return {"start": before, "test": job.accuracy(model), "macs": narrow / macs}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="gtsrb_small")
    parser.add_argument("--runs", type=Path, required=True, help="keeps the weights from which all arms start")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--macs", type=float, default=0.3)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--trainers", nargs="+", default=list(LOOPS), choices=list(LOOPS))
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = Rows(RESULTS / "trainers.jsonl", KEY)
    for seed in options.seeds:
        for trainer in options.trainers:
            for arm in ("wide", "narrow"):
                settings = (trainer, arm, seed, options.epochs, options.macs)
                which = dict(zip(KEY, settings, strict=True))
                rows.once(which, lambda trainer=trainer, arm=arm, seed=seed: row(options, trainer, arm, seed))  # type: ignore[misc]
    found = [row for row in rows.read() if (row["epochs"], row["budget"]) == (options.epochs, options.macs)]
    table = {
        f"{trainer}, {arm}": told([row["test"] for row in found if (row["trainer"], row["arm"]) == (trainer, arm)])
        for trainer in LOOPS
        for arm in ("wide", "narrow")
    }
    write_result("trainers", {"budget": options.macs, "test_top1": table, "rows": found}, data=str(options.data))


if __name__ == "__main__":
    main()
