"""Prunus in a plain PyTorch loop: the lines marked `# +` are all that is added, and the network shrinks to a budget.

python examples/own_loop.py
"""

import torch
from torch import nn

import prunus  # +

torch.manual_seed(0)
images, labels = torch.randn(64, 3, 16, 16), torch.arange(64) % 4
images += nn.functional.one_hot(labels, 4).float().repeat_interleave(4, 1).view(64, 1, 1, 16)  # something to learn
model: nn.Module = nn.Sequential(
    *(nn.Conv2d(3, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2)),
    *(nn.Conv2d(32, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(), nn.AdaptiveAvgPool2d((1, 4))),
    *(nn.Flatten(), nn.Linear(256, 4)),
)
optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=10)

shrinker = prunus.Shrinker(model, optimizer, images[:1], budget=prunus.Budget(macs=0.2), steps=10 * 8)  # +

for epoch in range(10):
    model.train()
    for batch in torch.randperm(64).view(8, 8):
        loss = nn.functional.cross_entropy(model(images[batch]), labels[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        shrinker.step()  # +
    scheduler.step()
    print(f"epoch {epoch + 1}: loss {loss:.3f}, {sum(p.numel() for p in model.parameters()):,} parameters")

accuracy = (model.eval()(images).argmax(1) == labels).float().mean()
print(f"accuracy {accuracy:.0%}")
