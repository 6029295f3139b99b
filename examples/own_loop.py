"""Prunus in a plain PyTorch loop: the lines marked `# +` are all that is added.

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

for epoch in range(10):
    groups = prunus.trace(model, images[:1])  # + which channels go together
    penalty = prunus.GroupLasso(strength=0.02).bind(model, groups)  # + presses them to exact zero, as one
    model.train()
    for batch in torch.randperm(64).view(8, 8):
        loss = nn.functional.cross_entropy(model(images[batch]), labels[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        penalty.prox_(step_size=scheduler.get_last_lr()[0], optimizer=optimizer)  # +
    scheduler.step()
    plan = prunus.select(model, groups)  # + what is zero now
    small = prunus.apply(plan, model)  # + a narrower network
    prunus.carry_(plan, optimizer, model, small)  # + which the optimizer goes on with, moments and all
    model = small  # +
    print(f"epoch {epoch + 1}: loss {loss:.3f}, {sum(p.numel() for p in model.parameters()):,} parameters")

accuracy = (model.eval()(images).argmax(1) == labels).float().mean()
print(f"accuracy {accuracy:.0%}")
