"""The networks of the zoo: torchvision's, and the smallest variant of each timm family."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from prunus.compat import torchvision

FAMILIES = Path(__file__).with_name("zoo_families.json")  # timm family -> [smallest variant, parameters]
MAX_TIMM_PARAMS = 120_000_000


@dataclasses.dataclass(frozen=True, kw_only=True)
class Network:
    """A network of the zoo, and the function that builds it with an example input."""

    name: str
    source: str  # "classification", "segmentation", "video", "detection", "timm"
    build: Callable[[], tuple[nn.Module, tuple[Tensor, ...]]]


class RawHeads(nn.Module):
    """A torchvision detector from the normalised image to the raw outputs of its heads.

    The omitted parts (anchors, decoding, suppression) have no parameters. The regions of a two-stage detector are
    replaced by one region: the whole finest feature map, pooled adaptively.
    """

    def __init__(self, detector: nn.Module) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, image: Tensor) -> list[Tensor]:
        """Map images [N, 3, H, W] to the outputs of the heads."""
        detector = self.detector
        features = detector.backbone(image)
        maps = [features] if isinstance(features, Tensor) else list(features.values())
        if hasattr(detector, "rpn"):
            return [*_flat(detector.rpn.head(maps)), *self._regions(detector.roi_heads, maps[0])]
        return _flat(detector.head(maps))

    @staticmethod
    def _regions(heads: Any, finest: Tensor) -> list[Tensor]:
        outputs = _flat(heads.box_predictor(heads.box_head(F.adaptive_avg_pool2d(finest, 7))))
        for kind in ("mask", "keypoint"):
            head = getattr(heads, f"{kind}_head", None)
            if head is not None:
                outputs.append(getattr(heads, f"{kind}_predictor")(head(F.adaptive_avg_pool2d(finest, 14))))
        return outputs


def _flat(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    items = value.values() if isinstance(value, dict) else value
    return [tensor for item in items for tensor in _flat(item)]


def networks() -> list[Network]:
    """Return the zoo, in a fixed order."""
    models = torchvision.models
    result = []
    for source, module in (
        ("classification", models),
        ("segmentation", models.segmentation),
        ("video", models.video),
        ("detection", models.detection),
    ):
        for name in sorted(models.list_models(module=module)):
            result.append(Network(name=name, source=source, build=_torchvision(name, source)))
    for family, (variant, params) in sorted(json.loads(FAMILIES.read_text()).items()):
        if params <= MAX_TIMM_PARAMS:
            result.append(Network(name=variant, source="timm", build=_timm(variant)))
        del family
    return result


def _torchvision(name: str, source: str) -> Callable[[], tuple[nn.Module, tuple[Tensor, ...]]]:
    def build() -> tuple[nn.Module, tuple[Tensor, ...]]:
        extra = {} if source in ("classification", "video") else {"weights_backbone": None}
        if name in ("googlenet", "inception_v3"):
            extra = {"init_weights": True}
        model = torchvision.models.get_model(name, weights=None, **extra)
        if source == "detection":
            size = 300 if "ssd300" in name else 320
            return RawHeads(model), (torch.randn(1, 3, size, size),)
        if source == "segmentation":
            return model, (torch.randn(1, 3, 224, 224),)
        if source == "video":
            return model, (torch.randn(1, 3, 16, *_clip(name)),)
        return model, (torch.randn(1, 3, *_image(name)),)

    return build


def _clip(name: str) -> tuple[int, int]:
    return (224, 224) if name.startswith(("mvit", "swin3d", "s3d")) else (112, 112)


def _image(name: str) -> tuple[int, int]:
    return (299, 299) if name == "inception_v3" else (224, 224)


def _timm(variant: str) -> Callable[[], tuple[nn.Module, tuple[Tensor, ...]]]:
    def build() -> tuple[nn.Module, tuple[Tensor, ...]]:
        import timm

        model = timm.create_model(variant, pretrained=False)
        size = model.pretrained_cfg.get("input_size", (3, 224, 224))
        return model, (torch.randn(1, *size),)

    return build
