"""Search for the host's end of a pod's veth, by rtnetlink. Changes nothing.

Two devices are a pair only if each names the other's index and the host's end names the pod's
namespace: packets handed to a device that merely has the right index would reach a stranger.
"""

import os
import socket
import struct

from agent.datapath import netns
from agent.datapath.errors import DatapathError
from agent.datapath.netlink import DUMP, REQUEST, ROUTE, Netlink, attributes
from control.model.address import Address

_GET_LINK, _GET_ADDRESS, _GET_NSID = 18, 22, 90
_LINK = struct.Struct("=BBHiII")
_LINK_PEER, _LINK_INFO, _LINK_NAMESPACE, _INFO_KIND = 5, 18, 37, 1
_ADDRESS = struct.Struct("=BBBBI")
_ADDRESS_LOCAL, _ADDRESS_ADDRESS = 2, 1
_NSID, _NSID_FD = 1, 3


def host_end(netns_fd: int, address: Address) -> int | None:
    """Index, in this namespace, of the veth whose other end has the address in that one.

    None: there is no such pair (another kind of device, or its end lies in a third namespace).
    """
    with netns.inside(netns_fd):
        there = Netlink(ROUTE)
    with there, Netlink(ROUTE) as here:
        inner = device_of(there, address)
        outer = _number(_link(there, inner), _LINK_PEER) if inner is not None else None
        if outer is None or os.fstat(netns_fd).st_ino == _own_inode():
            return None
        found = _link(here, outer)
        kind = dict(attributes(found.get(_LINK_INFO, b""))).get(_INFO_KIND, b"")
        is_pair = (
            kind.rstrip(b"\0") == b"veth"
            and _number(found, _LINK_PEER) == inner
            and _number(found, _LINK_NAMESPACE) == _namespace_id(here, netns_fd)
        )
        return outer if is_pair else None


def _ask(route: Netlink, kind: int, flags: int, body: bytes) -> list[bytes]:
    """Payloads of the whole answer; none when the kernel refuses: it knows no such thing."""
    try:
        answer = list(route.ask(kind, flags, body, "ask rtnetlink"))
    except DatapathError:
        return []
    return [payload for payloads in answer for payload in payloads]


def _number(found: dict[int, bytes], kind: int) -> int | None:
    raw = found.get(kind)
    return struct.unpack("=i", raw)[0] if raw is not None and len(raw) == 4 else None


def _link(route: Netlink, index: int) -> dict[int, bytes]:
    body = _LINK.pack(socket.AF_UNSPEC, 0, 0, index, 0, 0)
    for payload in _ask(route, _GET_LINK, REQUEST, body):
        return dict(attributes(payload[_LINK.size :]))
    return {}


def device_of(route: Netlink, address: Address) -> int | None:
    """Index of the device that has the address; None: there is none."""
    for payload in _ask(route, _GET_ADDRESS, REQUEST | DUMP, _ADDRESS.pack(0, 0, 0, 0, 0)):
        found = dict(attributes(payload[_ADDRESS.size :]))
        if address in (found.get(_ADDRESS_LOCAL), found.get(_ADDRESS_ADDRESS)):
            return int(_ADDRESS.unpack_from(payload)[4])
    return None


def _namespace_id(route: Netlink, netns_fd: int) -> int | None:
    """The number by which this namespace knows that one."""
    body = struct.pack("=BxxxHHi", socket.AF_UNSPEC, 8, _NSID_FD, netns_fd)
    for payload in _ask(route, _GET_NSID, REQUEST, body):
        return _number(dict(attributes(payload[4:])), _NSID)
    return None


def _own_inode() -> int:
    return os.stat("/proc/thread-self/ns/net").st_ino
