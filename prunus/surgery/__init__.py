"""CHANGE: edits as data, applied to a copy, carried over to what belongs to the model."""

from prunus.surgery.carry import Carried, carry_
from prunus.surgery.edit import Edit, Plan, apply
from prunus.surgery.fuse import FuseBatchNorm, fuse
from prunus.surgery.remove import Cut, RemoveChannels, SetAttribute
from prunus.surgery.save import load, save

__all__ = [
    "Carried",
    "Cut",
    "Edit",
    "FuseBatchNorm",
    "Plan",
    "RemoveChannels",
    "SetAttribute",
    "apply",
    "carry_",
    "fuse",
    "load",
    "save",
]
