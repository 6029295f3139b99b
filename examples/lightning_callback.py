"""Prunus as a Lightning callback: the network, an attribute of the module, shrinks after each epoch.

pip install lightning
python examples/lightning_callback.py
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import prunus
from prunus.compat import torchvision  # noqa: F401 - makes it importable beside a CPU-only torch, before lightning

import lightning  # isort: skip
from lightning.pytorch.callbacks import Callback  # isort: skip


class Shrink(Callback):
    """Presses channels of `module.<name>` to zero and removes those that are.

    Args:
        name: the attribute that holds the network; all that its optimizer trains lies there.
        example: an input of the network, to trace it with.
        penalty: which channels are pressed, and how hard.
    """

    def __init__(self, name: str, example: Tensor, penalty: prunus.GroupLasso) -> None:
        self.name, self.example, self.penalty = name, example, penalty

    def on_train_epoch_start(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        """Read the network as it is now."""
        network = getattr(module, self.name)
        self.groups = prunus.trace(network, self.example.to(module.device))
        self.bound = self.penalty.bind(network, self.groups)

    def on_train_batch_end(
        self, trainer: lightning.Trainer, module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Do the proximal step after the optimizer's."""
        for optimizer in trainer.optimizers:
            self.bound.prox_(step_size=optimizer.param_groups[0]["lr"], optimizer=optimizer)

    def on_train_epoch_end(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        """Cut what is zero, and go on with the narrow network."""
        network = getattr(module, self.name)
        plan = prunus.select(network, self.groups)
        small = prunus.apply(plan, network)
        for optimizer in trainer.optimizers:
            prunus.carry_(plan, optimizer, network, small)
        setattr(module, self.name, small)
        module.log("parameters", float(sum(parameter.numel() for parameter in small.parameters())), prog_bar=True)


class Classifier(lightning.LightningModule):
    """A small network on four classes."""

    def __init__(self) -> None:
        super().__init__()
        self.network = nn.Sequential(
            *(nn.Conv2d(3, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.AdaptiveAvgPool2d((1, 4))),
            *(nn.Flatten(), nn.Linear(128, 4)),
        )

    def training_step(self, batch: list[Tensor], index: int) -> Tensor:
        """Return the loss of a batch."""
        images, labels = batch
        return nn.functional.cross_entropy(self.network(images), labels)

    def configure_optimizers(self) -> Any:
        """Return the optimizer and its schedule."""
        optimizer = torch.optim.AdamW(self.parameters(), lr=1e-2)
        return [optimizer], [torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=5)]


def main() -> Classifier:
    """Train for five epochs and return the module, narrower."""
    torch.manual_seed(0)
    images, labels = torch.randn(64, 3, 16, 16), torch.arange(64) % 4
    images += nn.functional.one_hot(labels, 4).float().repeat_interleave(4, 1).view(64, 1, 1, 16)
    shrink = Shrink("network", images[:1], prunus.GroupLasso(strength=0.02))
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    trainer = lightning.Trainer(max_epochs=5, accelerator="cpu", callbacks=[shrink], **quiet)
    module = Classifier()
    trainer.fit(module, DataLoader(TensorDataset(images, labels), batch_size=8, shuffle=True))
    module.eval()
    accuracy = (module.network(images).argmax(1) == labels).float().mean()
    print(f"{trainer.callback_metrics['parameters']:.0f} parameters, accuracy {accuracy:.0%}")
    return module


if __name__ == "__main__":
    main()
