"""The shapes of RAFT (Teed & Deng 2020) and of a recurrent ConvLSTM, with fewer channels."""

import torch
from torch import nn
from torch.nn import functional as F


def encoder(size: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 24, 7, 2, 3), nn.BatchNorm2d(24), nn.ReLU(inplace=True), nn.Conv2d(24, 32, 3, 2, 1), nn.ReLU(),
        nn.Conv2d(32, size, 1),
    )  # fmt: skip


class Correlation:
    """All pairs of pixels at several scales, looked up around places."""

    def __init__(self, first, second, levels, radius):
        n, c, h, w = first.shape
        product = torch.matmul(first.view(n, c, h * w).transpose(1, 2), second.view(n, c, h * w))
        pairs = (product.view(n, h, w, 1, h, w) / torch.sqrt(torch.tensor(c).float())).reshape(n * h * w, 1, h, w)
        self.radius, self.pyramid = radius, [pairs]
        for _ in range(levels - 1):
            self.pyramid.append(F.avg_pool2d(self.pyramid[-1], 2, stride=2))

    def __call__(self, places):
        places, radius, found = places.permute(0, 2, 3, 1), self.radius, []
        n, h, w, _ = places.shape
        steps = torch.linspace(-radius, radius, 2 * radius + 1, dtype=places.dtype)
        window = torch.stack(torch.meshgrid(steps, steps, indexing="ij"), -1).view(1, len(steps), len(steps), 2)
        for level, pairs in enumerate(self.pyramid):
            grid = places.reshape(n * h * w, 1, 1, 2) / 2**level + window
            x, y = grid.split([1, 1], -1)
            size = pairs.shape[-2:]
            grid = torch.cat([2 * x / (size[1] - 1) - 1, 2 * y / (size[0] - 1) - 1], -1)
            found.append(F.grid_sample(pairs, grid, align_corners=True).view(n, h, w, -1))
        return torch.cat(found, -1).permute(0, 3, 1, 2).contiguous()


class Gru(nn.Module):
    def __init__(self, hidden, size):
        super().__init__()
        self.z, self.r, self.q = (nn.Conv2d(hidden + size, hidden, 3, padding=1) for _ in range(3))

    def forward(self, h, x):
        both = torch.cat([h, x], 1)
        z, r = self.z(both).sigmoid(), self.r(both).sigmoid()
        return (1 - z) * h + z * self.q(torch.cat([r * h, x], 1)).tanh()


class Raft(nn.Module):
    """Two images to optical flow, refined twice."""

    def __init__(self, hidden=24, context=20):
        super().__init__()
        self.hidden, self.context = hidden, context
        self.features, self.contexts = encoder(48), encoder(hidden + context)
        self.corr, self.flow_1, self.flow_2 = (
            nn.Conv2d(18, 32, 1),
            nn.Conv2d(2, 24, 7, padding=3),
            nn.Conv2d(24, 16, 3, 1, 1),
        )
        self.motion, self.gru = nn.Conv2d(48, 30, 3, padding=1), Gru(hidden, context + 32)
        self.head = nn.Sequential(nn.Conv2d(hidden, 32, 3, 1, 1), nn.ReLU(), nn.Conv2d(32, 2, 3, 1, 1))
        self.mask = nn.Sequential(nn.Conv2d(hidden, 32, 3, 1, 1), nn.ReLU(), nn.Conv2d(32, 16 * 9, 1))

    def upsampled(self, flow, mask):
        n, _, h, w = flow.shape
        mask = mask.view(n, 1, 9, 4, 4, h, w).softmax(2)
        windows = F.unfold(4 * flow, [3, 3], padding=1).view(n, 2, 9, 1, 1, h, w)
        return (mask * windows).sum(2).permute(0, 1, 4, 2, 5, 3).reshape(n, 2, 4 * h, 4 * w)

    def forward(self, first, second):
        one, two = self.features(torch.cat([first, second])).split([first.shape[0]] * 2)
        lookup = Correlation(one, two, 2, 1)
        state, context = self.contexts(first).split([self.hidden, self.context], 1)
        state, context, outputs = state.tanh(), context.relu(), []
        n, _, h, w = one.shape
        rows = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
        start = torch.stack(rows[::-1], 0).to(first.dtype)[None].repeat(n, 1, 1, 1)
        places = start.clone()
        for _ in range(2):
            places = places.detach()
            flow = places - start
            seen = self.corr(lookup(places)).relu()
            moved = self.flow_2(self.flow_1(flow).relu()).relu()
            motion = torch.cat([self.motion(torch.cat([seen, moved], 1)).relu(), flow], 1)
            state = self.gru(state, torch.cat([context, motion], 1))
            places = places + self.head(state)
            outputs.append(self.upsampled(places - start, 0.25 * self.mask(state)))
        return outputs


class LstmCell(nn.Module):
    def __init__(self, size, hidden):
        super().__init__()
        self.hidden, self.gates = hidden, nn.Conv2d(size + hidden, 4 * hidden, 3, padding=1)

    def begin(self, n, size):
        like = {"dtype": self.gates.weight.dtype, "device": self.gates.weight.device}
        return torch.zeros(n, self.hidden, *size, **like), torch.zeros(n, self.hidden, *size, **like)

    def forward(self, x, state):
        h, c = state
        i, f, o, g = torch.split(self.gates(torch.cat([x, h], 1)), self.hidden, 1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        return o.sigmoid() * c.tanh(), c


class ConvLstm(nn.Module):
    """Images in a row, [N, T, C, H, W]."""

    def __init__(self):
        super().__init__()
        self.cells, self.head = nn.ModuleList([LstmCell(3, 16), LstmCell(16, 24)]), nn.Conv2d(24, 2, 1)

    def forward(self, x):
        for cell in self.cells:
            state, states = cell.begin(x.shape[0], x.shape[-2:]), []
            for step in range(x.shape[1]):
                state = cell(x[:, step], state)
                states.append(state[0])
            x = torch.stack(states, 1)
        return self.head(x[:, -1])
