"""Copy a module with some of its tensors cut narrower, everything else as it was."""

import copy
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

Keep = Mapping[str, Mapping[int, Tensor]]  # path -> dimension -> indices that stay, ascending


def narrowed(model: nn.Module, keep: Keep) -> nn.Module:
    """Return a copy of `model` with the tensors named in `keep` cut to the indices that stay.

    Tied tensors stay tied, modes, `requires_grad`, dtype, device, memory format and hooks survive; the sizes that
    torch's own layers keep as attributes follow their tensors.
    """
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    memo: dict[int, object] = {}
    for path, dims in keep.items():
        tensor = tensors[path]
        smaller = cut(tensor.detach(), dims)
        if isinstance(tensor, nn.Parameter):
            smaller = nn.Parameter(smaller, requires_grad=tensor.requires_grad)
        memo[id(tensor)] = smaller
    result = copy.deepcopy(model, memo)
    for path in sorted({path.rpartition(".")[0] for path in keep}):
        settle(result.get_submodule(path))
    return result


def cut(tensor: Tensor, dims: Mapping[int, Tensor]) -> Tensor:
    """Return a copy of `tensor` with the given indices of the given dimensions, in its memory format."""
    result = tensor
    for dim, indices in dims.items():
        result = result.index_select(dim, indices.to(tensor.device))
    if tensor.dim() == 4 and tensor.is_contiguous(memory_format=torch.channels_last) and not tensor.is_contiguous():
        return result.contiguous(memory_format=torch.channels_last)
    return result.contiguous()


def settle(module: nn.Module) -> None:
    """Put the sizes that a torch layer keeps as attributes right after its tensors have changed."""
    for kind, rule in _SETTLE.items():
        if isinstance(module, kind):
            rule(module)


def _settle_conv(module: nn.Module) -> None:
    weight, transposed = module.weight, isinstance(module, _Transposed)
    outer, inner = weight.shape[0], weight.shape[1]
    if module.groups > 1 and module.groups == module.in_channels:  # depthwise: a group goes with its channel
        multiplier = module.out_channels // module.groups
        module.groups = outer if transposed else outer // multiplier
    first, second = ("in_channels", "out_channels") if transposed else ("out_channels", "in_channels")
    setattr(module, first, outer)
    setattr(module, second, inner * module.groups)


def _settle_linear(module: nn.Module) -> None:
    module.out_features, module.in_features = module.weight.shape


def _settle_norm(module: nn.Module) -> None:
    tensor = module.weight if module.weight is not None else module.running_mean
    if tensor is not None:
        module.num_features = tensor.shape[0]


def _settle_layer_norm(module: nn.Module) -> None:
    if module.weight is not None:
        module.normalized_shape = tuple(module.weight.shape)


def _settle_group_norm(module: nn.Module) -> None:
    if module.weight is not None:
        if module.num_groups == module.num_channels:
            module.num_groups = module.weight.shape[0]
        module.num_channels = module.weight.shape[0]


def _settle_embedding(module: nn.Module) -> None:
    module.num_embeddings, module.embedding_dim = module.weight.shape


def _settle_prelu(module: nn.Module) -> None:
    module.num_parameters = module.weight.shape[0]


_Batch = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
_Instance = (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)
_Conv = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_Transposed = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_SETTLE: dict[tuple[type[nn.Module], ...], Callable[[nn.Module], None]] = {
    _Conv: _settle_conv,
    (nn.Linear,): _settle_linear,
    (*_Batch, *_Instance): _settle_norm,
    (nn.LayerNorm, nn.RMSNorm): _settle_layer_norm,
    (nn.GroupNorm,): _settle_group_norm,
    (nn.Embedding,): _settle_embedding,
    (nn.PReLU,): _settle_prelu,
}
