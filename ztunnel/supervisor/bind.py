"""Opens listening sockets inside a pod's network namespace.

They share one port, which no app can have: with our own agent the kernel half gives each connection
to one socket and does not look at ports. Before a pod is captured, and after its release, peers may
use HBONE all the same: what comes to that port by itself is HBONE's. The packet filter rules of a
foreign agent know the fixed ports.

The caller's thread goes there and back, which takes 50 us; a thread for each pod took 0.5 ms, and
more where processors are short. A process that cannot go back ends: it may not stay behind in a
pod's network.
"""

from __future__ import annotations

import ctypes
import errno
import logging
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from control.kit.errors import KernelError
from control.kit.log import event

log = logging.getLogger("pods")

CLONE_NEWNET = 0x40000000
BACKLOG = 4096  # the kernel cuts it to the namespace's net.core.somaxconn
# Istio's ports: outbound, plaintext inbound, HBONE.
FIXED_PORTS = (15001, 15006, 15008)
PORT = 15008  # HBONE's: connections to it are the ztunnel's in any case
# Classic BPF (linux/filter.h): a random number, modulo, plus, which is the place in the group.
_SO_ATTACH_REUSEPORT_CBPF = 51
_LOAD_WORD, _RANDOM = 0x20, 0xFFFFF000 + 56  # SKF_AD_OFF + SKF_AD_RANDOM
_MODULO, _ADD, _RETURN_A = 0x94, 0x04, 0x16
_NO_IPV6 = frozenset({errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL})

_libc = ctypes.CDLL(None, use_errno=True)


class NamespaceUnusable(KernelError):
    reason = "netns_unusable"


@dataclass(frozen=True, slots=True)
class Listeners:
    """One worker's sockets in one pod, in the order that contract C3 has."""

    outbound: socket.socket
    plaintext: socket.socket
    hbone: socket.socket

    def descriptors(self) -> tuple[int, int, int]:
        return self.outbound.fileno(), self.plaintext.fileno(), self.hbone.fileno()

    def close(self) -> None:
        for each in (self.outbound, self.plaintext, self.hbone):
            each.close()


def open_listeners(netns: int, workers: int, *, fixed_ports: bool) -> tuple[Listeners, ...]:
    """Three sockets for each worker.

    NamespaceUnusable: one of them could not be opened; then none is.
    """
    opened: list[socket.socket] = []
    try:
        with _inside(netns):
            if fixed_ports:
                for port in FIXED_PORTS:
                    opened.extend(_group(port, workers))
            else:
                opened.extend(_on_one_port(3 * workers))
                _prefer(opened, first=2 * workers)
    except OSError as exc:
        for each in opened:
            each.close()
        raise NamespaceUnusable(f"cannot listen in the pod's network: {exc}") from exc
    groups = [opened[start : start + workers] for start in range(0, 3 * workers, workers)]
    return tuple(Listeners(*each) for each in zip(*groups, strict=True))


@contextmanager
def _inside(netns: int) -> Iterator[None]:
    """Put this thread into the namespace and back; nothing may wait in between."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        _enter(netns)
        try:
            yield
        finally:
            _return(home)
    finally:
        os.close(home)


def _return(home: int) -> None:
    try:
        _enter(home)
    except OSError as exc:
        event(log, logging.CRITICAL, "netns.no_way_back", error=exc)
        os._exit(1)


def _enter(netns: int) -> None:
    if _libc.setns(netns, CLONE_NEWNET):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _on_one_port(size: int) -> list[socket.socket]:
    try:
        return _group(PORT, size)
    except OSError as exc:
        if exc.errno != errno.EADDRINUSE:
            raise
        # An app listens there since before it was enrolled; its clients meet the ztunnel anyway.
        return _group(0, size)


def _prefer(group: list[socket.socket], first: int) -> None:
    """Have the kernel give what comes to the port by itself to a socket of the group, from the
    `first` one on: HBONE's. Whoever is captured needs it not, so a kernel may refuse."""
    code = [_instruction(*each) for each in (
        (_LOAD_WORD, _RANDOM), (_MODULO, len(group) - first), (_ADD, first), (_RETURN_A, 0),
    )]  # fmt: skip
    program = ctypes.create_string_buffer(b"".join(code))
    wanted = struct.pack("HxxxxxxP", len(code), ctypes.addressof(program))
    try:
        group[0].setsockopt(socket.SOL_SOCKET, _SO_ATTACH_REUSEPORT_CBPF, wanted)
    except OSError as exc:
        event(log, logging.WARNING, "pod.hbone_not_preferred", error=exc)


def _instruction(code: int, operand: int) -> bytes:
    """struct sock_filter, without jumps."""
    return struct.pack("=HBBI", code, 0, 0, operand)


def _group(port: int, size: int) -> list[socket.socket]:
    """`size` sockets on one port: `port`, or the one that the kernel chooses if it is 0."""
    sockets: list[socket.socket] = []
    try:
        for _ in range(size):
            sockets.append(_listen(port))
            port = sockets[0].getsockname()[1]
    except OSError:
        for each in sockets:
            each.close()
        raise
    return sockets


def _listen(port: int) -> socket.socket:
    try:
        return _listen_on(socket.AF_INET6, "::", port)
    except OSError as exc:
        if exc.errno not in _NO_IPV6:
            raise
        return _listen_on(socket.AF_INET, "0.0.0.0", port)


def _listen_on(family: socket.AddressFamily, address: str, port: int) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind((address, port))
        sock.listen(BACKLOG)
    except OSError:
        sock.close()
        raise
    return sock
