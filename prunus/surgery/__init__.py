"""Change a copy of a network by edits that are data, and carry its optimizer over."""

from prunus.surgery.bypass import BypassBlock, bypass, skippable
from prunus.surgery.carry import Carried, carry_
from prunus.surgery.contract import ContractLayers, contract
from prunus.surgery.decompose import DecomposeLayer, decompose
from prunus.surgery.edit import Edit
from prunus.surgery.expand import ExpandLayer, expand
from prunus.surgery.factorize import FactorizeLayer, factorize
from prunus.surgery.factors import Factors
from prunus.surgery.fuse import FuseBatchNorm, fuse
from prunus.surgery.layers import Layer, ReplaceModules
from prunus.surgery.linearize import LinearizeLayer, linearize
from prunus.surgery.plan import Plan, apply
from prunus.surgery.recalibrate import recalibrate
from prunus.surgery.remove import RemoveChannels
from prunus.surgery.save import load, save
from prunus.surgery.set_attribute import Cut, SetAttribute

__all__ = [
    "BypassBlock",
    "Carried",
    "ContractLayers",
    "Cut",
    "DecomposeLayer",
    "Edit",
    "ExpandLayer",
    "FactorizeLayer",
    "Factors",
    "FuseBatchNorm",
    "Layer",
    "LinearizeLayer",
    "Plan",
    "RemoveChannels",
    "ReplaceModules",
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
    "recalibrate",
    "save",
    "skippable",
]
