"""TCP sockets of a pod's namespace, by sock_diag: lists them, reads their counts, ends one.

The caller decides which connections have to go; nothing here knows a policy.
"""

import errno
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from agent.datapath import netns
from agent.datapath.errors import DatapathError
from agent.datapath.netlink import (
    ACKNOWLEDGE,
    DUMP,
    REQUEST,
    SOCK_DIAG,
    Netlink,
    attribute,
    attributes,
)
from control.model.address import Address, Endpoint, canonical

ESTABLISHED, LISTEN = 1, 10  # states, as linux/tcp_states.h numbers them

_BY_FAMILY, _DESTROY = 20, 21  # kinds of requests
_REQUEST = struct.Struct("=BBBBI")  # family, protocol, extensions, pad, states; then the socket id
_SOCKET_ID_BYTES = 48  # ports, addresses, interface, cookie: given back unread to end the socket
_ANSWER_BYTES = 72
_NO_COOKIE = b"\xff" * 8  # INET_DIAG_NOCOOKIE: any socket with these addresses
_COOKIE_AT = 44  # in an answer
_INFO = 2  # INET_DIAG_INFO: struct tcp_info
_STORAGES = 20  # INET_DIAG_SK_BPF_STORAGES (Linux 5.7): nested attributes of nested ones
_STORAGE_VALUE = 3  # SK_DIAG_BPF_STORAGE_MAP_VALUE
_REQUEST_STORAGES, _REQUEST_MAP_FD = 2, 1
_INFO_MOVED_AT = 120  # tcpi_bytes_acked, tcpi_bytes_received
_COUNTERS = Path("/proc/thread-self/net/snmp")
# Established, syn-sent, syn-received, fin-wait-1, fin-wait-2, close-wait, last-ack, closing: all
# that carry data or soon would. Time-wait is no socket any more, a listener no connection.
_CONNECTION_STATES = sum(1 << state for state in (ESTABLISHED, 2, 3, 4, 5, 8, 9, 11))


@dataclass(frozen=True, slots=True)
class ListedSocket:
    """One TCP socket as the kernel lists it."""

    state: int
    local: Endpoint
    remote: Endpoint
    inode: int
    family: int
    socket_id: bytes


class Transfer(NamedTuple):
    """Bytes acknowledged to a socket (its SYN taken off) and bytes it has received."""

    cookie: int
    sent: int
    received: int
    storage: bytes = b""  # the socket's value in the map that was asked for


def diagnosis(netns_fd: int) -> Netlink:
    """A conversation about the sockets of that namespace."""
    with netns.inside(netns_fd):
        return Netlink(SOCK_DIAG)


def listed(diag: Netlink, states: int) -> Iterator[ListedSocket]:
    """Sockets of both families in these states (a mask)."""
    for family in (socket.AF_INET, socket.AF_INET6):
        body = _body(family, states, bytes(_SOCKET_ID_BYTES))
        for payloads in diag.ask(_BY_FAMILY, REQUEST | DUMP, body, "list sockets"):
            yield from (parse_answer(each) for each in payloads if len(each) >= _ANSWER_BYTES)


def connections(netns_fd: int) -> list[ListedSocket]:
    """The live TCP connections of a namespace."""
    with diagnosis(netns_fd) as diag:
        return list(listed(diag, _CONNECTION_STATES))


def listening_ports(netns_fd: int) -> frozenset[int]:
    with diagnosis(netns_fd) as diag:
        return frozenset(each.local.port for each in listed(diag, 1 << LISTEN))


class Counted(NamedTuple):
    """A namespace's connections, loopback included: those that are established, and all that
    were ever made, out and in."""

    established: int
    made: int


def counted(netns_fd: int) -> Counted:
    """A namespace's connections by its counters: to list them, the kernel walks the tables of the
    whole host, some 3 ms for each family."""
    with netns.inside(netns_fd):
        return parse_counters(_COUNTERS.read_text())


def established(netns_fd: int) -> int:
    return counted(netns_fd).established


def parse_counters(text: str) -> Counted:
    """From /proc/net/snmp; DatapathError: it is not there."""
    try:
        names, values = [line.split() for line in text.splitlines() if line.startswith("Tcp:")]
        found = dict(zip(names[1:], map(int, values[1:]), strict=True))
        return Counted(found["CurrEstab"], found["ActiveOpens"] + found["PassiveOpens"])
    except (KeyError, ValueError) as exc:
        raise DatapathError("the kernel does not count connections") from exc


def transfers(netns_fd: int, storage_fd: int | None = None) -> Iterator[list[Transfer]]:
    """The counts of each connection of a namespace, in one list for each datagram of the kernel:
    callers may do something else in between. `storage_fd`: a map of socket storage to read too."""
    asked = b""
    if storage_fd is not None:
        map_fd = attribute(_REQUEST_MAP_FD, struct.pack("=I", storage_fd))
        asked = attribute(_REQUEST_STORAGES, map_fd)
    with diagnosis(netns_fd) as diag:
        for family in (socket.AF_INET, socket.AF_INET6):
            wanted = bytes(_SOCKET_ID_BYTES) + asked
            body = _body(family, _CONNECTION_STATES, wanted, extensions=1 << _INFO - 1)
            for payloads in diag.ask(_BY_FAMILY, REQUEST | DUMP, body, "list sockets"):
                found = map(parse_transfer, payloads)
                yield [transfer for transfer in found if transfer is not None]


def destroy(netns_fd: int, local: Endpoint, remote: Endpoint) -> bool:
    """Abort one connection (its owner sees ECONNABORTED); False: there is none.

    The socket is looked up first, because the kernel would otherwise fall back to the listener of
    that port and abort it.
    """
    family = socket.AF_INET if len(local.address) == 4 else socket.AF_INET6
    name = struct.pack("!HH", local.port, remote.port)
    name += local.address.ljust(16, b"\0") + remote.address.ljust(16, b"\0")
    name += bytes(4) + _NO_COOKIE
    body = _body(family, _CONNECTION_STATES, name)
    with diagnosis(netns_fd) as diag:
        try:
            for payload in _whole(diag, _BY_FAMILY, REQUEST, body, "look up a connection"):
                found = parse_answer(payload)
                if 1 << found.state & _CONNECTION_STATES and found.remote.port == remote.port:
                    wanted = _body(found.family, 1 << found.state, found.socket_id)
                    _whole(diag, _DESTROY, REQUEST | ACKNOWLEDGE, wanted, "end a connection")
                    return True
        except DatapathError as exc:
            if exc.number != errno.ENOENT:  # never there, or ended by itself meanwhile
                raise
    return False


def _whole(diag: Netlink, kind: int, flags: int, body: bytes, what: str) -> list[bytes]:
    answer = list(diag.ask(kind, flags, body, what))
    return [each for payloads in answer for each in payloads if len(each) >= _ANSWER_BYTES]


def _body(family: int, states: int, socket_id: bytes, extensions: int = 0) -> bytes:
    return _REQUEST.pack(family, socket.IPPROTO_TCP, extensions, 0, states) + socket_id


def parse_answer(data: bytes) -> ListedSocket:
    """One answer (struct inet_diag_msg), of 72 bytes or more."""
    family, state = data[0], data[1]
    local_port, remote_port = struct.unpack_from("!HH", data, 4)
    (inode,) = struct.unpack_from("=I", data, 68)
    return ListedSocket(
        state,
        Endpoint(_address(family, data[8:24]), local_port),
        Endpoint(_address(family, data[24:40]), remote_port),
        inode,
        family,
        data[4 : 4 + _SOCKET_ID_BYTES],
    )


def _address(family: int, raw: bytes) -> Address:
    return canonical(raw[:4] if family == socket.AF_INET else raw)


def parse_transfer(data: bytes) -> Transfer | None:
    """None without struct tcp_info, or with one older than its byte counts (Linux 4.2)."""
    moved: tuple[int, int] | None = None
    storage = b""
    for kind, payload in attributes(data[_ANSWER_BYTES:]):
        if kind == _INFO and len(payload) >= _INFO_MOVED_AT + 16:
            moved = struct.unpack_from("=QQ", payload, _INFO_MOVED_AT)
        elif kind == _STORAGES:
            for _, one in attributes(payload):
                storage = dict(attributes(one)).get(_STORAGE_VALUE, storage)
    if moved is None:
        return None
    (cookie,) = struct.unpack_from("=Q", data, _COOKIE_AT)
    return Transfer(cookie, max(moved[0] - 1, 0), moved[1], storage)
