"""Which device of this network namespace is the other end of a pod's veth? Changes nothing.

rtnetlink is spoken directly, as sockets.py speaks sock_diag, and for the same reason. Two ends are
a pair only if each names the other's index and this one names the pod's namespace: handing packets
to a device that merely has the right number would hand them to a stranger.
"""

import os
import socket
import struct

from agent.datapath import netns
from agent.datapath.pods import IPAddress
from agent.datapath.sockets import messages

_NETLINK_ROUTE = 0
_GET_LINK, _GET_ADDRESS, _GET_NSID = 18, 22, 90
_ERROR, _DONE = 2, 3
_REQUEST, _DUMP = 1, 0x301
_HEADER = struct.Struct("=IHHII")
_LINK = struct.Struct("=BBHiII")
_LINK_PEER, _LINK_INFO, _LINK_NAMESPACE, _INFO_KIND = 5, 18, 37, 1
_ADDRESS = struct.Struct("=BBBBI")
_ADDRESS_LOCAL, _ADDRESS_ADDRESS = 2, 1
_NSID, _NSID_FD = 1, 3
_NESTED = 1 << 15
_DATAGRAM_BYTES_MAX = 65536
_RECEIVE_TIMEOUT_S = 5.0
_ANSWERS_MAX = 1024  # datagrams of one dump: addresses of one pod


def attributes(data: bytes) -> dict[int, bytes]:
    """Type -> payload; a type that comes twice keeps its last."""
    found: dict[int, bytes] = {}
    offset = 0
    while offset + 4 <= len(data):
        length, kind = struct.unpack_from("=HH", data, offset)
        if length < 4:
            break
        found[kind & ~_NESTED] = data[offset + 4 : offset + length]
        offset += length + 3 & ~3
    return found


def _number(found: dict[int, bytes], kind: int) -> int | None:
    raw = found.get(kind)
    return struct.unpack("=i", raw)[0] if raw is not None and len(raw) == 4 else None


def _open() -> socket.socket:
    opened = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_ROUTE)
    opened.settimeout(_RECEIVE_TIMEOUT_S)
    return opened


def _ask(route: socket.socket, kind: int, flags: int, body: bytes) -> list[bytes]:
    """Payloads of the whole answer; an error of the kernel's is no answer."""
    route.send(_HEADER.pack(_HEADER.size + len(body), kind, flags, 1, 0) + body)
    answers: list[bytes] = []
    for _ in range(_ANSWERS_MAX):
        for found, payload in messages(route.recv(_DATAGRAM_BYTES_MAX)):
            if found in (_ERROR, _DONE):
                return answers
            answers.append(payload)
        if flags != _DUMP:
            break
    return answers


def _link(route: socket.socket, index: int) -> dict[int, bytes]:
    body = _LINK.pack(socket.AF_UNSPEC, 0, 0, index, 0, 0)
    for payload in _ask(route, _GET_LINK, _REQUEST, body):
        return attributes(payload[_LINK.size :])
    return {}


def _device_of(route: socket.socket, address: IPAddress) -> int | None:
    for payload in _ask(route, _GET_ADDRESS, _DUMP, _ADDRESS.pack(0, 0, 0, 0, 0)):
        found = attributes(payload[_ADDRESS.size :])
        if address.packed in (found.get(_ADDRESS_LOCAL), found.get(_ADDRESS_ADDRESS)):
            return int(_ADDRESS.unpack_from(payload)[4])
    return None


def _namespace_id(route: socket.socket, netns_fd: int) -> int | None:
    body = struct.pack("=BxxxHHi", socket.AF_UNSPEC, 8, _NSID_FD, netns_fd)
    for payload in _ask(route, _GET_NSID, _REQUEST, body):
        return _number(attributes(payload[4:]), _NSID)
    return None


def host_end(netns_fd: int, address: IPAddress) -> int | None:
    """The index, here, of the veth whose other end carries the address there. None: there is no
    such pair (another kind of device, or its end lies in a third namespace)."""
    with netns.inside(netns_fd):
        there = _open()
    with there, _open() as here:
        inner = _device_of(there, address)
        outer = _number(_link(there, inner), _LINK_PEER) if inner is not None else None
        if outer is None or os.fstat(netns_fd).st_ino == _own_inode():
            return None
        found = _link(here, outer)
        kind = attributes(found.get(_LINK_INFO, b"")).get(_INFO_KIND, b"")
        is_pair = (
            kind.rstrip(b"\0") == b"veth"
            and _number(found, _LINK_PEER) == inner
            and _number(found, _LINK_NAMESPACE) == _namespace_id(here, netns_fd)
        )
        return outer if is_pair else None


def _own_inode() -> int:
    return os.stat("/proc/thread-self/ns/net").st_ino
