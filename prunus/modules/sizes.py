"""Sizes that torch's layers keep as attributes (`in_channels`, `groups`, ...), updated to their tensors' shapes."""

import torch
from torch import Tensor, nn

from prunus.modules.kinds import BatchNorm, Conv, InstanceNorm, TransposedConv


def update_sizes(module: nn.Module, kept: Tensor | None = None) -> None:
    """Set the sizes that a torch layer keeps as attributes from the shapes of its tensors.

    `kept` are the indices kept of the weight's first dimension, where known: a convolution loses groups without any.
    """
    match module:
        case _ if isinstance(module, Conv):
            _update_conv(module, kept)
        case _ if isinstance(module, TransposedConv):
            _update_transposed(module)
        case nn.Linear():
            module.out_features, module.in_features = module.weight.shape
        case nn.Embedding():
            module.num_embeddings, module.embedding_dim = module.weight.shape
        case nn.PReLU():
            module.num_parameters = module.weight.shape[0]
        case nn.LayerNorm() | nn.RMSNorm() if module.elementwise_affine:
            module.normalized_shape = tuple(module.weight.shape)
        case nn.GroupNorm() if module.affine:
            _update_group_norm(module)
        case nn.MultiheadAttention():
            _update_attention(module)
        case nn.RNNBase() if not module.proj_size:
            module.input_size, module.hidden_size = (
                module.get_parameter(name).shape[1] for name in ("weight_ih_l0", "weight_hh_l0")
            )
        case nn.RNNCellBase():
            module.input_size, module.hidden_size = module.weight_ih.shape[1], module.weight_hh.shape[1]
        case _ if isinstance(module, BatchNorm | InstanceNorm):
            _update_norm(module)


def _update_conv(module: Conv, kept: Tensor | None) -> None:
    outer, inner = module.weight.shape[:2]
    if kept is not None:
        module.groups = int(torch.unique(kept // (module.out_channels // module.groups)).numel())
    elif module.groups > 1 and module.groups == module.in_channels:  # depthwise: a group is removed with its channel
        module.groups = outer // (module.out_channels // module.groups)
    module.out_channels, module.in_channels = outer, inner * module.groups


def _update_transposed(module: TransposedConv) -> None:
    outer, inner = module.weight.shape[:2]
    if module.groups > 1 and module.groups == module.in_channels:
        module.groups = outer
    module.in_channels, module.out_channels = outer, inner * module.groups


def _update_norm(module: BatchNorm | InstanceNorm) -> None:
    tensor = module.weight if module.affine else module.running_mean
    if tensor is not None:
        module.num_features = tensor.shape[0]


def _update_group_norm(module: nn.GroupNorm) -> None:
    channels = module.weight.shape[0]
    if module.num_groups == module.num_channels:  # one group per channel
        module.num_groups = channels
    module.num_channels = channels


def _update_attention(module: nn.MultiheadAttention) -> None:
    packed = module.in_proj_weight is not None
    module.embed_dim = (module.in_proj_weight if packed else module.q_proj_weight).shape[1]
    module.kdim = module.embed_dim if packed else module.k_proj_weight.shape[1]
    module.vdim = module.embed_dim if packed else module.v_proj_weight.shape[1]
    module.head_dim = module.embed_dim // module.num_heads
