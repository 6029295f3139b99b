"""Networks of the shapes of well-known ones: nearly all of their parameters can be removed, and the law holds."""

import pytest
import torch
from idioms import check, reasons
from shapes_dense import EfficientFormer, Enet
from shapes_detection import Detr, RtDetr, SamDecoder
from shapes_flow import ConvLstm, Raft

import prunus

LEAST = 0.85  # of the parameters
SHAPES = {  # name -> network, shapes of its inputs
    "RT-DETR": (RtDetr, ((2, 3, 32, 32),)),
    "RAFT": (Raft, ((1, 3, 16, 16), (1, 3, 16, 16))),
    "EfficientFormerV2": (EfficientFormer, ((2, 3, 16, 16),)),
    "ENet": (Enet, ((1, 3, 32, 32),)),
    "ConvLSTM": (ConvLstm, ((1, 2, 3, 8, 8),)),
    "SAM": (SamDecoder, ((2, 3, 16, 16), (2, 2, 2))),
    "DETR": (Detr, ((2, 3, 32, 32),)),
}


@pytest.mark.parametrize(("build", "shapes"), SHAPES.values(), ids=SHAPES)
def test_nearly_all_can_be_removed(build, shapes):
    generator = torch.Generator().manual_seed(0)
    inputs = [torch.randn(shape, generator=generator) for shape in shapes]
    model = build()
    groups = check(model, *inputs)
    assert groups.coverage().removable_params >= LEAST, reasons(groups)
    plan = prunus.select(model, groups, budget=prunus.Budget(params=0.5, approximate=True))
    small = prunus.apply(plan, model).eval()
    small(*(each.double() for each in inputs))
    assert 0.4 < sum(parameter.numel() for parameter in small.parameters()) / groups.params() <= 0.5
