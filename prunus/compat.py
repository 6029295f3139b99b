"""Torchvision beside a torch that its C++ operators do not fit: `from prunus.compat import torchvision`.

The wheel of torchvision on the package index is the CUDA build. Beside a CPU-only torch its operators do not
load, and `import torchvision` fails with "operator torchvision::nms does not exist", because torchvision registers
shape functions for two operators that nothing has declared. In that case this module declares the two, and implements
them in torch, before the import: transforms, datasets, networks, `ops.nms` and `ops.batched_nms` then work, here and
in every library that imports torchvision later. Where the operators load, nothing changes. The other C++ operators
(deformable convolution, ...) keep torchvision's own error.
"""

import importlib.machinery
import importlib.util
import sys
from collections.abc import Callable, Mapping
from typing import Any

import torch


def nms(boxes: torch.Tensor, scores: torch.Tensor, iou_threshold: float) -> torch.Tensor:
    """Return the indices of the boxes that greedy non-maximum suppression keeps, best score first.

    The best remaining box is kept, and every box whose intersection over union with it is above
    `iou_threshold` is dropped, until none remains.

    Args:
        boxes: [N, 4], corners (x1, y1, x2, y2).
        scores: [N]; of two equal scores the earlier box comes first.
        iou_threshold: in [0, 1].

    Returns:
        int64 [K], as torchvision.ops.nms.

    Raises:
        ValueError: shapes other than [N, 4] and [N].
    """
    if boxes.dim() != 2 or boxes.shape[1] != 4 or scores.shape != boxes.shape[:1]:
        raise ValueError(f"nms takes boxes [N, 4] and scores [N], not {list(boxes.shape)} and {list(scores.shape)}")
    # Integer and half-precision areas would overflow.
    corners = boxes if boxes.dtype == torch.float64 else boxes.float()
    left = torch.argsort(scores, descending=True, stable=True)
    kept = []
    while left.numel():
        kept.append(left[0])
        # A degenerate pair gives nan, which is not above the threshold: both stay, as in the C++ operator.
        left = left[1:][~(_iou(corners[left[0]], corners[left[1:]]) > iou_threshold)]
    return torch.stack(kept) if kept else left


def _iou(box: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """Return the intersection over union of one box [4] with others [N, 4]: [N]."""
    top_left, bottom_right = torch.maximum(box[:2], others[:, :2]), torch.minimum(box[2:], others[:, 2:])
    intersection = (bottom_right - top_left).clamp(min=0).prod(dim=1)
    area, areas = (box[2:] - box[:2]).prod(), (others[:, 2:] - others[:, :2]).prod(dim=1)
    return intersection / (area + areas - intersection)


def operators_load() -> bool:
    """Whether torchvision's compiled operators load beside this torch."""
    package = importlib.util.find_spec("torchvision")  # finds a package without importing it
    if package is None or not package.submodule_search_locations:
        raise ImportError("torchvision is not installed: pip install torchvision")
    library = importlib.machinery.PathFinder.find_spec("_C", list(package.submodule_search_locations))
    if library is None or library.origin is None:
        return False
    load: Callable[[str], None] = torch.ops.load_library
    try:
        load(library.origin)
    except (ImportError, OSError):
        return False
    return True


def _declare_operators() -> None:
    for name in ("torchvision::nms", "torchvision::qnms"):
        torch.library.define(name, "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        # "default" serves every device, since it is written in torch operators. `qnms` gets integers of a single
        # scale, for which the intersection over union is the same.
        torch.library.impl(name, "default", nms)


def _nms(boxes: torch.Tensor, scores: torch.Tensor, iou_threshold: float) -> torch.Tensor:
    """Call torchvision.ops.nms without its refusal, through the operator, so that an export keeps it whole."""
    kept: torch.Tensor = torch.ops.torchvision.nms(boxes, scores, iou_threshold)
    return kept


def _prepare() -> bool:
    """Make `import torchvision` work; return whether operators had to be declared for it."""
    if "torchvision" in sys.modules or operators_load():
        return False
    _declare_operators()
    return True


declared: bool = _prepare()

import torchvision  # noqa: E402  (only now can it be imported)
import torchvision.tv_tensors  # noqa: E402
from torchvision.transforms import v2 as transforms  # noqa: E402

if declared:  # torchvision's nms refuses without the compiled operators, although the operator now exists
    torchvision.ops.nms = torchvision.ops.boxes.nms = _nms

ONE_STAGE = ("SSD", "RetinaNet", "FCOS")


def detection_model(function: str, num_classes: int, arguments: Mapping[str, Any]) -> Any:
    """Return a one-stage detector of torchvision.models.detection for `num_classes`, background not included.

    Its weights are fresh unless `arguments` names some.

    Raises:
        ValueError: there is no such function, it does not accept the arguments, or its detector has two stages.
    """
    detection = torchvision.models.detection
    build = getattr(detection, function, None)
    if not callable(build):
        raise ValueError(f"torchvision.models.detection has no {function!r}; it has ssdlite320_mobilenet_v3_large")
    background = 1 if function.startswith("ssd") else 0
    settings = {"weights": None, "weights_backbone": None, **arguments}
    try:
        built = build(num_classes=num_classes + background, **settings)
    except TypeError as error:
        raise ValueError(f"{function}: {error}") from error
    kinds = (detection.ssd.SSD, detection.RetinaNet, detection.FCOS)
    if not isinstance(built, kinds):
        raise ValueError(f"{function} is not a one-stage detector; supported: {', '.join(ONE_STAGE)}")
    return built


__all__ = ["declared", "detection_model", "nms", "operators_load", "torchvision", "transforms"]
