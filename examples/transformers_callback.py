"""Prunus as a callback of the Hugging Face Trainer: the network, an attribute of the model, shrinks after each epoch.

pip install transformers accelerate
python examples/transformers_callback.py
"""

import tempfile
from typing import Any

import torch
from torch import Tensor, nn

import prunus
from prunus.compat import torchvision  # noqa: F401 - makes it importable beside a CPU-only torch, before transformers

from transformers import Trainer, TrainerCallback, TrainingArguments  # isort: skip


class Shrink(TrainerCallback):
    """Presses channels of `model.<name>` to zero and removes those that are.

    Args:
        name: the attribute that holds the network; all that the optimizer trains lies there.
        example: an input of the network, to trace it with.
        penalty: which channels are pressed, and how hard.
    """

    def __init__(self, name: str, example: Tensor, penalty: prunus.GroupLasso) -> None:
        self.name, self.example, self.penalty = name, example, penalty

    def on_epoch_begin(self, args: Any, state: Any, control: Any, *, model: nn.Module, **others: Any) -> None:
        """Read the network as it is now."""
        network = getattr(model, self.name)
        self.groups = prunus.trace(network, self.example.to(args.device))
        self.bound = self.penalty.bind(network, self.groups)

    def on_optimizer_step(self, args: Any, state: Any, control: Any, *, optimizer: Any, **others: Any) -> None:
        """Do the proximal step after the optimizer's."""
        self.bound.prox_(step_size=optimizer.param_groups[0]["lr"], optimizer=_inner(optimizer))

    def on_epoch_end(
        self, args: Any, state: Any, control: Any, *, model: nn.Module, optimizer: Any, **others: Any
    ) -> None:
        """Cut what is zero, and go on with the narrow network."""
        network = getattr(model, self.name)
        plan = prunus.select(network, self.groups)
        small = prunus.apply(plan, network)
        prunus.carry_(plan, _inner(optimizer), network, small)
        setattr(model, self.name, small)


def _inner(optimizer: Any) -> torch.optim.Optimizer:
    """Return torch's optimizer out of accelerate's wrapper."""
    return getattr(optimizer, "optimizer", optimizer)


class Classifier(nn.Module):
    """A small network on four classes, in the form that the Trainer expects."""

    def __init__(self) -> None:
        super().__init__()
        self.network = nn.Sequential(
            *(nn.Conv2d(3, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.AdaptiveAvgPool2d((1, 4))),
            *(nn.Flatten(), nn.Linear(128, 4)),
        )

    def forward(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Return the loss and the scores."""
        scores = self.network(images)
        return {"loss": nn.functional.cross_entropy(scores, labels), "logits": scores}


def main() -> Classifier:
    """Train for five epochs and return the model, narrower."""
    torch.manual_seed(0)
    images, labels = torch.randn(64, 3, 16, 16), torch.arange(64) % 4
    images += nn.functional.one_hot(labels, 4).float().repeat_interleave(4, 1).view(64, 1, 1, 16)
    data = [{"images": image, "labels": label} for image, label in zip(images, labels, strict=True)]
    model = Classifier()
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            num_train_epochs=5,
            per_device_train_batch_size=8,
            learning_rate=1e-2,
            save_strategy="no",
            report_to=[],
            use_cpu=True,
            disable_tqdm=True,
            dataloader_pin_memory=False,
        )
        shrink = Shrink("network", images[:1], prunus.GroupLasso(strength=0.02))
        Trainer(model=model, args=arguments, train_dataset=data, callbacks=[shrink]).train()
    model.eval()
    accuracy = (model.network(images).argmax(1) == labels).float().mean()
    print(f"{sum(p.numel() for p in model.parameters())} parameters, accuracy {accuracy:.0%}")
    return model


if __name__ == "__main__":
    main()
