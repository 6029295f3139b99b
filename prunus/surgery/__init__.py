"""CHANGE: edits as data, applied to a copy, carried over to what belongs to the model."""

from prunus.surgery.bypass import Bypass, bypass, skippable
from prunus.surgery.carry import Carried, carry_
from prunus.surgery.contract import Contract, contract
from prunus.surgery.decompose import Decompose, decompose
from prunus.surgery.edit import Edit, Plan, apply
from prunus.surgery.expand import Expand, expand
from prunus.surgery.factorize import Factorize, factorize
from prunus.surgery.factors import Factors
from prunus.surgery.fuse import FuseBatchNorm, fuse
from prunus.surgery.layers import Layer
from prunus.surgery.linearize import Linearize, linearize
from prunus.surgery.remove import Cut, RemoveChannels, SetAttribute
from prunus.surgery.save import load, save

__all__ = [
    "Bypass",
    "Carried",
    "Contract",
    "Cut",
    "Decompose",
    "Edit",
    "Expand",
    "Factorize",
    "Factors",
    "FuseBatchNorm",
    "Layer",
    "Linearize",
    "Plan",
    "RemoveChannels",
    "SetAttribute",
    "apply",
    "bypass",
    "carry_",
    "contract",
    "decompose",
    "expand",
    "factorize",
    "fuse",
    "linearize",
    "load",
    "save",
    "skippable",
]
