"""Kinds of torch's layers: unions for annotations, `isinstance` and `match`."""

from torch import nn

Conv = nn.Conv1d | nn.Conv2d | nn.Conv3d
TransposedConv = nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d
BatchNorm = nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d | nn.SyncBatchNorm
InstanceNorm = nn.InstanceNorm1d | nn.InstanceNorm2d | nn.InstanceNorm3d
SizedLayer = (  # the layers that keep their sizes as attributes (`sizes.py`)
    Conv
    | TransposedConv
    | BatchNorm
    | InstanceNorm
    | nn.Linear
    | nn.Embedding
    | nn.PReLU
    | nn.LayerNorm
    | nn.RMSNorm
    | nn.GroupNorm
)
