"""READ: a network's channels, who makes them, who reads them, and which go together."""

from prunus.graph.groups import ChannelGroups
from prunus.graph.rules import rule
from prunus.graph.slots import Member, Role, Slot, Status
from prunus.graph.trace import trace

__all__ = ["ChannelGroups", "Member", "Role", "Slot", "Status", "rule", "trace"]
