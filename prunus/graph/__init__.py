"""Find a network's channels: which tensors make them, which read them, and which channels go together."""

from prunus.graph.groups import ChannelGroups
from prunus.graph.rules import rule
from prunus.graph.slots import Member, Role, Slot, Status
from prunus.graph.trace import trace

__all__ = ["ChannelGroups", "Member", "Role", "Slot", "Status", "rule", "trace"]
