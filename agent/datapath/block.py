"""The mesh's own addresses in a captured pod, by rtnetlink: makes a block of each family local.

The route names the pod's own address as the source, so that an app that is steered into the block
still comes from there, and the pod's device, so that a socket bound to that device may go there. It
stays when the pod is released, for the connections that are still open; without our programs it
leads nowhere.
"""

import socket
import struct

from agent.datapath import netns
from agent.datapath.errors import DatapathError
from agent.datapath.netlink import ACKNOWLEDGE, REQUEST, ROUTE, Netlink, attribute
from agent.datapath.veth import device_of
from bpf import layout
from control.model.address import Address, format_address

_NEW_ROUTE = 24
_CREATE, _REPLACE = 0x400, 0x100  # NLM_F_CREATE, NLM_F_REPLACE
_ROUTE = struct.Struct("=BBBBBBBBI")  # struct rtmsg
_TABLE_LOCAL, _TYPE_LOCAL, _SCOPE_HOST = 255, 2, 254
_PROTOCOL = 0x54  # ours, in `ip route`'s `proto`; Linux gives such numbers to nobody
_DESTINATION, _DEVICE, _PREFERRED_SOURCE = 1, 4, 7

_BLOCK_V6_BITS = 48
BLOCK_V4 = struct.pack("!I", layout.BLOCK_V4)
BLOCK_V6 = struct.pack("!IH10x", layout.BLOCK_V6_HIGH, layout.BLOCK_V6_LOW)


def make_local(netns_fd: int, addresses: tuple[Address, ...]) -> None:
    """Make the block local in the pod; DatapathError if the kernel refuses, or an address is on no
    device."""
    with netns.inside(netns_fd):
        route = Netlink(ROUTE)
    with route:
        for address in addresses:
            device = device_of(route, address)
            if device is None:
                raise DatapathError(f"no device of the pod has {format_address(address)}")
            flags = REQUEST | ACKNOWLEDGE | _CREATE | _REPLACE
            for _ in route.ask(_NEW_ROUTE, flags, _body(address, device), "add a local route"):
                pass


def _body(address: Address, device: int) -> bytes:
    is_v4 = len(address) == 4
    family = socket.AF_INET if is_v4 else socket.AF_INET6
    block, bits = (BLOCK_V4, layout.BLOCK_V4_BITS) if is_v4 else (BLOCK_V6, _BLOCK_V6_BITS)
    head = _ROUTE.pack(family, bits, 0, 0, _TABLE_LOCAL, _PROTOCOL, _SCOPE_HOST, _TYPE_LOCAL, 0)
    return (
        head
        + attribute(_DESTINATION, block)
        + attribute(_DEVICE, struct.pack("=i", device))
        + attribute(_PREFERRED_SOURCE, address)
    )
