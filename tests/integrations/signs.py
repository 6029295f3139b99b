"""Small real images for the trainers: German traffic signs of four classes, and a network for them."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

GTSRB = Path(__file__).parents[3] / "shared" / "data" / "gtsrb_small"
EXAMPLE = torch.linspace(-1, 1, 3 * 16 * 16).reshape(1, 3, 16, 16)


def images(per_class=8, classes=4):
    """Return (images [N, 3, 16, 16], labels [N])."""
    folders = sorted(path for path in (GTSRB / "train").iterdir() if path.is_dir())[:classes]
    found, labels = [], []
    for label, folder in enumerate(folders):
        for path in sorted(folder.iterdir())[: 4 * per_class : 4]:
            picture = Image.open(path).convert("RGB").resize((16, 16))
            found.append(torch.from_numpy(np.array(picture)).permute(2, 0, 1) / 128.0 - 1)
            labels.append(label)
    return torch.stack(found), torch.tensor(labels)


class Network(nn.Module):
    """Convolutions, BatchNorm, dropout, a linear head."""

    def __init__(self, width=16, classes=4):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(), nn.MaxPool2d(2))
        self.body = nn.Sequential(nn.Conv2d(width, 2 * width, 3, padding=1), nn.BatchNorm2d(2 * width), nn.ReLU())
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Dropout(0.1), nn.Linear(8 * width, classes))

    def forward(self, images):
        return self.head(self.body(self.stem(images)))


def build():
    torch.manual_seed(0)
    return Network()


def equal(first, second):
    """Whether two networks hold the same tensors, bit for bit."""
    one, other = first.state_dict(), second.state_dict()
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
