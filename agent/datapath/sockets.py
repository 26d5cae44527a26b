"""Other processes' sockets: copies a foreign tunnel's listeners, cuts live connections.

sock_diag is spoken directly: one request and one answer layout (linux/inet_diag.h), where importing
pyroute2 for it would add 25 MiB to an agent whose whole budget is 45. Which connections have to go
is the caller's decision; nothing here knows a policy.
"""

import ctypes
import errno
import ipaddress
import os
import socket
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from agent.datapath import netns
from agent.datapath.errors import KernelError
from agent.datapath.pods import IPAddress

OUTBOUND_PORT, PLAINTEXT_PORT, HBONE_PORT = 15001, 15006, 15008
TUNNEL_PORTS = (OUTBOUND_PORT, PLAINTEXT_PORT, HBONE_PORT)

_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY, _SOCK_DESTROY = 20, 21
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_FLAGS_DUMP = 0x301  # NLM_F_REQUEST | NLM_F_DUMP
_FLAGS_ONE = 0x1  # NLM_F_REQUEST
_FLAGS_ACKED = 0x5  # NLM_F_REQUEST | NLM_F_ACK
_HEADER = struct.Struct("=IHHII")
_REQUEST = struct.Struct("=BBBBI")  # family, protocol, extensions, pad, states; then the socket id
_SOCKET_ID_BYTES = 48  # ports, addresses, interface, cookie: given back unread to destroy it
_ANSWER_BYTES = 72
_NO_COOKIE = b"\xff" * 8  # INET_DIAG_NOCOOKIE: whichever socket has these addresses
_COOKIE_AT = 44  # in an answer
_ATTRIBUTE_INFO = 2  # INET_DIAG_INFO: struct tcp_info
_ATTRIBUTE_STORAGES = 20  # INET_DIAG_SK_BPF_STORAGES (5.7): of nested ones, of nested ones
_ATTRIBUTE_TYPE_MASK = 0x3FFF  # NLA_TYPE_MASK
_STORAGE_VALUE = 3  # SK_DIAG_BPF_STORAGE_MAP_VALUE
_REQUEST_STORAGES, _REQUEST_MAP_FD = 2, 1
_INFO_MOVED_AT = 120  # tcpi_bytes_acked, tcpi_bytes_received
_STATE_LISTEN = 10
# Established, syn-sent, syn-received, fin-wait-1, fin-wait-2, close-wait, last-ack, closing: what
# still carries data or soon would. Time-wait is no socket any more, a listener no connection.
_CONNECTION_STATES = sum(1 << state for state in (1, 2, 3, 4, 5, 8, 9, 11))
# The kernel fills one datagram of a dump up to 32 KiB.
_DATAGRAM_BYTES_MAX = 65536
_RECEIVE_TIMEOUT_S = 5.0

_PIDFD_GETFD = 438  # the same number on every architecture
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Connection:
    """One TCP socket as the kernel lists it; v4-mapped addresses are written as IPv4."""

    state: int
    local: IPAddress
    local_port: int
    remote: IPAddress
    remote_port: int
    inode: int
    family: int
    socket_id: bytes


class Transfer(NamedTuple):
    """What has been acknowledged to a socket (its SYN taken off), and what it has received."""

    cookie: int
    sent: int
    received: int
    storage: bytes = b""


def _address(family: int, raw: bytes) -> IPAddress:
    if family == socket.AF_INET:
        return ipaddress.IPv4Address(raw[:4])
    address = ipaddress.IPv6Address(raw)
    return address.ipv4_mapped or address


def parse_answer(data: bytes) -> Connection:
    family, state = data[0], data[1]
    local_port, remote_port = struct.unpack_from("!HH", data, 4)
    (inode,) = struct.unpack_from("=I", data, 68)
    return Connection(
        state,
        _address(family, data[8:24]),
        local_port,
        _address(family, data[24:40]),
        remote_port,
        inode,
        family,
        data[4 : 4 + _SOCKET_ID_BYTES],
    )


def messages(datagram: bytes) -> Iterator[tuple[int, bytes]]:
    """(type, payload) of each netlink message in a datagram."""
    offset = 0
    while offset + _HEADER.size <= len(datagram):
        length, kind, _, _, _ = _HEADER.unpack_from(datagram, offset)
        if length < _HEADER.size:
            raise KernelError(f"a netlink message of {length} bytes")
        yield kind, datagram[offset + _HEADER.size : offset + length]
        offset += length + 3 & ~3


def _request(
    kind: int, flags: int, family: int, states: int, socket_id: bytes, extensions: int = 0
) -> bytes:
    body = _REQUEST.pack(family, socket.IPPROTO_TCP, extensions, 0, states) + socket_id
    return _HEADER.pack(_HEADER.size + len(body), kind, flags, 1, 0) + body


def _diagnosis(netns_fd: int) -> socket.socket:
    """A sock_diag socket that sees that namespace, for ever after."""
    with netns.inside(netns_fd):
        diag = socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, _NETLINK_SOCK_DIAG)
    diag.settimeout(_RECEIVE_TIMEOUT_S)
    return diag


def _check(payload: bytes, what: str) -> None:
    (code,) = struct.unpack_from("=i", payload)
    if code:
        raise KernelError(what, -code)


def _dump(diag: socket.socket, states: int) -> Iterator[Connection]:
    for family in (socket.AF_INET, socket.AF_INET6):
        diag.send(
            _request(_SOCK_DIAG_BY_FAMILY, _FLAGS_DUMP, family, states, bytes(_SOCKET_ID_BYTES))
        )
        done = False
        while not done:
            for kind, payload in messages(diag.recv(_DATAGRAM_BYTES_MAX)):
                if kind == _NLMSG_ERROR:
                    _check(payload, "list sockets")
                elif kind == _NLMSG_DONE:
                    done = True
                elif len(payload) >= _ANSWER_BYTES:
                    yield parse_answer(payload)


def transfers(netns_fd: int, storage_fd: int | None = None) -> Iterator[list[Transfer]]:
    """How much each connection of a namespace has moved, a datagram of the kernel's at a time: the
    caller may do something else in between. With what that map of socket storage has about it."""
    asked = b""
    if storage_fd is not None:
        inner = struct.pack("=HHI", 8, _REQUEST_MAP_FD, storage_fd)
        asked = struct.pack("=HH", 4 + len(inner), _REQUEST_STORAGES) + inner
    with _diagnosis(netns_fd) as diag:
        for family in (socket.AF_INET, socket.AF_INET6):
            wanted = bytes(_SOCKET_ID_BYTES) + asked
            request = (_SOCK_DIAG_BY_FAMILY, _FLAGS_DUMP, family, _CONNECTION_STATES, wanted)
            diag.send(_request(*request, extensions=1 << _ATTRIBUTE_INFO - 1))
            done = False
            while not done:
                found = []
                for kind, payload in messages(diag.recv(_DATAGRAM_BYTES_MAX)):
                    if kind == _NLMSG_ERROR:
                        _check(payload, "list sockets")
                    elif kind == _NLMSG_DONE:
                        done = True
                    elif (transfer := parse_transfer(payload)) is not None:
                        found.append(transfer)
                yield found


def parse_transfer(data: bytes) -> Transfer | None:
    """None without struct tcp_info, or with one older than its byte counts (Linux 4.2)."""
    moved: tuple[int, int] | None = None
    storage = b""
    for kind, payload in _attributes(data[_ANSWER_BYTES:]):
        if kind == _ATTRIBUTE_INFO and len(payload) >= _INFO_MOVED_AT + 16:
            moved = struct.unpack_from("=QQ", payload, _INFO_MOVED_AT)
        elif kind == _ATTRIBUTE_STORAGES:
            for _, one in _attributes(payload):
                storage = dict(_attributes(one)).get(_STORAGE_VALUE, storage)
    if moved is None:
        return None
    (cookie,) = struct.unpack_from("=Q", data, _COOKIE_AT)
    return Transfer(cookie, max(moved[0] - 1, 0), moved[1], storage)


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """(type, payload) of netlink attributes, up to one that cannot be."""
    offset = 0
    while offset + 4 <= len(data):
        length, kind = struct.unpack_from("=HH", data, offset)
        if length < 4:
            return
        yield kind & _ATTRIBUTE_TYPE_MASK, data[offset + 4 : offset + length]
        offset += length + 3 & ~3


def connections(netns_fd: int) -> list[Connection]:
    """The live TCP connections of a namespace."""
    with _diagnosis(netns_fd) as diag:
        return list(_dump(diag, _CONNECTION_STATES))


def destroy_connections(netns_fd: int, predicate: Callable[[Connection], bool]) -> int:
    """Abort those that the predicate names (their owners see ECONNABORTED); how many went."""
    cut = 0
    with _diagnosis(netns_fd) as diag:
        for connection in list(_dump(diag, _CONNECTION_STATES)):
            if predicate(connection):
                cut += _destroy(diag, connection)
    return cut


def _destroy(diag: socket.socket, connection: Connection) -> bool:
    states = 1 << connection.state
    diag.send(
        _request(_SOCK_DESTROY, _FLAGS_ACKED, connection.family, states, connection.socket_id)
    )
    for kind, payload in messages(diag.recv(_DATAGRAM_BYTES_MAX)):
        if kind == _NLMSG_ERROR:
            try:
                _check(payload, "cut a connection")
            except KernelError as exc:
                if exc.number == errno.ENOENT:
                    return False  # ended by itself meanwhile
                raise
    return True


def destroy_connection(
    netns_fd: int, local: tuple[IPAddress, int], remote: tuple[IPAddress, int]
) -> bool:
    """Abort this very one; False: there is none. Asked for by name first, because the kernel
    falls back to the listener of that port, and would abort it."""
    family = socket.AF_INET if local[0].version == 4 else socket.AF_INET6
    name = struct.pack("!HH", local[1], remote[1])
    name += local[0].packed.ljust(16, b"\0") + remote[0].packed.ljust(16, b"\0")
    name += bytes(4) + _NO_COOKIE
    with _diagnosis(netns_fd) as diag:
        diag.send(_request(_SOCK_DIAG_BY_FAMILY, _FLAGS_ONE, family, _CONNECTION_STATES, name))
        for kind, payload in messages(diag.recv(_DATAGRAM_BYTES_MAX)):
            if kind != _SOCK_DIAG_BY_FAMILY or len(payload) < _ANSWER_BYTES:
                continue  # an error: there is none
            found = parse_answer(payload)
            if 1 << found.state & _CONNECTION_STATES and found.remote_port == remote[1]:
                return _destroy(diag, found)
    return False


def _socket_fds(pid: int) -> dict[int, int]:
    """Socket inode -> fd number in that process."""
    found = {}
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = os.readlink(entry)
        except FileNotFoundError:
            continue  # closed meanwhile
        if target.startswith("socket:["):
            found[int(target[8:-1])] = int(entry.name)
    return found


def steal_listeners(
    pid: int, netns_fd: int, ports: tuple[int, ...] = TUNNEL_PORTS
) -> dict[int, int]:
    """Copies of the process's listeners in that namespace, by port; the caller closes them.

    For a tunnel that does not hand over its sockets (Istio's). A port that is missing has no
    listener yet: ask again later.
    """
    with _diagnosis(netns_fd) as diag:
        listening = [c for c in _dump(diag, 1 << _STATE_LISTEN) if c.local_port in ports]
    theirs = _socket_fds(pid)
    copies: dict[int, int] = {}
    pidfd = os.pidfd_open(pid)
    try:
        for listener in listening:
            if listener.local_port in copies or listener.inode not in theirs:
                continue
            copy = _libc.syscall(_PIDFD_GETFD, pidfd, theirs[listener.inode], 0)
            if copy < 0:
                for opened in copies.values():
                    os.close(opened)
                raise KernelError(f"copy a listener of process {pid}", ctypes.get_errno())
            copies[listener.local_port] = copy
    finally:
        os.close(pidfd)
    return copies
