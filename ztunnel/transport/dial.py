"""Opens TCP connections inside a pod's network namespace without ever blocking.

An app is dialled with a `Permit` alone: the address in it is the one that policy was asked about.

A socket belongs for good to the namespace that the thread was in when it was made; connecting and
all that follows do not depend on it. So the worker enters a namespace only to call socket(), and
stays there until it needs another: nothing else in the process may depend on where it is.
"""

from __future__ import annotations

import ctypes
import errno
import logging
import os
import select
import socket
from collections.abc import Callable
from enum import Enum
from struct import Struct
from typing import Final, Protocol

from control.kit.errors import KernelError
from control.kit.log import event
from control.model.address import Address, Endpoint, format_address, mapped
from control.model.policy import Connection, Permit
from ztunnel.loop.reactor import WATCH_BOTH, WRITABLE, Reactor
from ztunnel.mesh.roles import NextHop, Target
from ztunnel.tenants.tenancy import Tenancy
from ztunnel.transport.sockets import bare_socket

log = logging.getLogger("ztunnel.dial")

CONNECT_S: Final = 10.0
# The kernel half draws the source of a dial to an app out of 2^21: with 28,000 open connections to
# one port of an app, one dial in 75 meets a source that is in use, and four in a row do not.
SOURCES_TRIED_MAX: Final = 4
_CLONE_NEWNET: Final = 0x40000000
# Tells the kernel half which client the app is to see (bpf/README.md, C4).
_SHOW_SOURCE: Final = 0x7475
_pack_show: Final = Struct("!16sH6x").pack
_MAPPED_PREFIX: Final = mapped(Address(bytes(4)))[:12]
_OPEN: Final = b"\x01"  # TCP_ESTABLISHED, the first byte of tcp_info
_ENDED: Final = select.EPOLLERR | select.EPOLLHUP
# As plain numbers: the enums of `socket` cost as much to pass as a system call.
_AF_INET: Final = int(socket.AF_INET)
_AF_INET6: Final = int(socket.AF_INET6)
_SOL_SOCKET: Final = int(socket.SOL_SOCKET)
_SO_REUSEADDR: Final = int(socket.SO_REUSEADDR)
_SOL_IP: Final = int(socket.SOL_IP)
_IPPROTO_IPV6: Final = int(socket.IPPROTO_IPV6)
_IPV6_FREEBIND: Final = 78  # from linux/in6.h
_IPPROTO_TCP: Final = int(socket.IPPROTO_TCP)
_TCP_NODELAY: Final = int(socket.TCP_NODELAY)
_TCP_INFO: Final = int(socket.TCP_INFO)
_TCP_DEFER_ACCEPT: Final = int(socket.TCP_DEFER_ACCEPT)
_EINPROGRESS: Final = int(errno.EINPROGRESS)
_EADDRNOTAVAIL: Final = int(errno.EADDRNOTAVAIL)


class DialError(Enum):
    """Reason why nobody answered; the value is the log's word."""

    REFUSED = "connection refused"
    UNREACHABLE = "unreachable"
    TIMEOUT = "connect timed out"
    RESET = "connection reset"
    NO_DESCRIPTORS = "too many open files"
    NO_PORTS = "no local port is free"
    NAMESPACE = "cannot enter the pod's network namespace"
    ABANDONED = "abandoned"
    OTHER = "connect failed"


_BY_ERRNO: Final = {
    errno.ECONNREFUSED: DialError.REFUSED,
    errno.EHOSTUNREACH: DialError.UNREACHABLE,
    errno.ENETUNREACH: DialError.UNREACHABLE,
    errno.ETIMEDOUT: DialError.TIMEOUT,
    errno.ECONNRESET: DialError.RESET,
    errno.EMFILE: DialError.NO_DESCRIPTORS,
    errno.ENFILE: DialError.NO_DESCRIPTORS,
    errno.EADDRNOTAVAIL: DialError.NO_PORTS,
}

DialDone = Callable[[socket.socket | DialError], None]


class Namespaces:
    """The network namespace the process is in, and the way into another."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._home = -1  # where the process started; opened when it first leaves
        self._current = -1

    def enter(self, netns_fd: int) -> None:
        """Enter a namespace; -1 is any. KernelError if the kernel refuses."""
        if netns_fd in (-1, self._current):
            return
        if self._home < 0:
            self._home = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        if self._libc.setns(netns_fd, _CLONE_NEWNET) != 0:
            number = ctypes.get_errno()
            raise KernelError(f"cannot enter the pod's network namespace: {os.strerror(number)}")
        self._current = netns_fd

    def leave(self, netns_fd: int) -> None:
        """Go home if the process is in that namespace, whose descriptor is about to be closed.

        Being in a namespace keeps it alive, and the descriptor's number may come again for another
        pod.
        """
        if netns_fd >= 0 and self._current == netns_fd:
            self.enter(self._home)


class Dialling(Protocol):
    """A dial under way."""

    def abandon(self) -> None:
        """Give it up: nobody wants the answer any more."""


class Dials(Protocol):
    source_not_shown: int

    def leave(self, netns_fd: int) -> None:
        """The namespace's descriptor is about to be closed."""

    def dial(
        self,
        netns_fd: int,
        target: NextHop | Target,
        done: DialDone,
        payer: Tenancy | None = None,
    ) -> Dialling | None: ...

    def dial_app(
        self,
        netns_fd: int,
        permit: Permit,
        done: DialDone,
        client: Endpoint,
        patient: bool = False,
        payer: Tenancy | None = None,
    ) -> Dialling | None: ...


def allow_source(sock: socket.socket) -> None:
    """Let the kernel half bind the socket to an address of its own block (bpf/README.md, C4), which
    no interface has."""
    if sock.family == _AF_INET6:
        sock.setsockopt(_IPPROTO_IPV6, _IPV6_FREEBIND, 1)


class Dialer:
    """Dials that return None have called `done` already."""

    def __init__(
        self, reactor: Reactor, allow_source: Callable[[socket.socket], None] = allow_source
    ) -> None:
        """`allow_source` readies a socket for the source that the kernel half gives it."""
        self._reactor, self._allow_source = reactor, allow_source
        self._namespaces = Namespaces()
        self._deadline = reactor.countdown(CONNECT_S, Dial.on_due)
        self.source_not_shown = 0

    def leave(self, netns_fd: int) -> None:
        self._namespaces.leave(netns_fd)

    def dial(
        self,
        netns_fd: int,
        target: NextHop | Target,
        done: DialDone,
        payer: Tenancy | None = None,
    ) -> Dial | None:
        """Connect to a tunnel, or to a destination outside the mesh, on behalf of `payer`."""
        sock = self._open(netns_fd, target.address, done)
        if sock is None or not _connect(sock, target.address, target.port, done):
            return None
        return self._wait(sock, done, payer)

    def dial_app(
        self,
        netns_fd: int,
        permit: Permit,
        done: DialDone,
        client: Endpoint,
        patient: bool = False,
        payer: Tenancy | None = None,
    ) -> Dial | None:
        """Connect to the app that `permit` is for, which sees `client` as its peer.

        `patient`: the app hears of the connection with its first bytes, or at `end_handshake`.
        """
        permitted = permit.connection
        sock = self._connect_app(netns_fd, permitted, done, client, patient, SOURCES_TRIED_MAX)
        if sock is None:
            return None
        # Within one host the kernel has shaken hands before connect() returns EINPROGRESS. Asking
        # saves a turn of latency and an epoll_ctl; not worth it towards other hosts.
        if sock.getsockopt(_IPPROTO_TCP, _TCP_INFO, 1) == _OPEN:
            done(sock)
            return None
        return self._wait(sock, done, payer)

    def _connect_app(
        self,
        netns_fd: int,
        permitted: Connection,
        done: DialDone,
        client: Endpoint,
        patient: bool,
        tries: int,
    ) -> socket.socket | None:
        """A socket that connects; None if `done` has heard why there is none."""
        address, port = permitted.destination_ip, permitted.destination_port
        sock = self._open(netns_fd, address, done)
        if sock is None:
            return None
        if patient:
            # On a socket that connects, the kernel takes this as: there will be data soon.
            sock.setsockopt(_IPPROTO_TCP, _TCP_DEFER_ACCEPT, 1)
        self._allow_source(sock)
        self._show(sock, client, address)
        number = sock.connect_ex((format_address(address), port))
        if number in (0, _EINPROGRESS):
            return sock
        sock.close()
        if number == _EADDRNOTAVAIL and tries > 1:
            return self._connect_app(netns_fd, permitted, done, client, patient, tries - 1)
        done(_BY_ERRNO.get(number, DialError.OTHER))
        return None

    def _open(self, netns_fd: int, address: Address, done: DialDone) -> socket.socket | None:
        """A socket for `address` in that namespace; None if `done` has heard why there is none."""
        try:
            self._namespaces.enter(netns_fd)
            sock = bare_socket(_AF_INET6 if len(address) == 16 else _AF_INET)
        except KernelError as exc:
            event(log, logging.ERROR, "dial.namespace_refused", error=exc)
            done(DialError.NAMESPACE)
            return None
        except OSError as exc:
            done(_BY_ERRNO.get(exc.errno or 0, DialError.OTHER))
            return None
        return sock if self._prepare(sock, done) else None

    def _prepare(self, sock: socket.socket, _done: DialDone) -> bool:
        """Set what must be set before a socket connects; False if `done` has heard why not."""
        sock.setsockopt(_IPPROTO_TCP, _TCP_NODELAY, 1)
        # The port that it gets is the app's as well, if the app wants it for a listener.
        sock.setsockopt(_SOL_SOCKET, _SO_REUSEADDR, 1)
        return True

    def _show(self, sock: socket.socket, client: Endpoint, _app: Address) -> None:
        address: bytes = client.address
        if len(address) == 4:
            address = _MAPPED_PREFIX + address
        try:
            sock.setsockopt(_SOL_IP, _SHOW_SOURCE, _pack_show(address, client.port))
        except OSError:
            self.source_not_shown += 1

    def _wait(self, sock: socket.socket, done: DialDone, payer: Tenancy | None) -> Dial:
        dial = Dial(self._reactor, sock, done, self._deadline.stop, payer)
        self._reactor.watch(sock.fileno(), dial, WATCH_BOTH)
        self._deadline.start(dial)
        return dial


def _connect(sock: socket.socket, address: Address, port: int, done: DialDone) -> bool:
    """Begin to connect; False if `done` has heard why not."""
    number = sock.connect_ex((format_address(address), port))
    if number != 0 and number != _EINPROGRESS:
        sock.close()
        done(_BY_ERRNO.get(number, DialError.OTHER))
        return False
    return True


class Dial:
    """One connection attempt under way."""

    __slots__ = ("_done", "_over", "_reactor", "_sock", "_stop_deadline", "payer")

    def __init__(
        self,
        reactor: Reactor,
        sock: socket.socket,
        done: DialDone,
        stop_deadline: Callable[[Dial], None],
        payer: Tenancy | None,
    ) -> None:
        self.payer: Final = payer
        self._reactor = reactor
        self._sock = sock
        self._done = done
        self._stop_deadline = stop_deadline
        self._over = False

    def on_ready(self, events: int) -> None:
        if self._over:
            return
        if events & _ENDED:
            number = self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            self._fail(_BY_ERRNO.get(number, DialError.RESET if not number else DialError.OTHER))
        elif events & WRITABLE:
            self._over = True
            self._stop_deadline(self)
            self._done(self._sock)

    def on_due(self) -> None:
        self._fail(DialError.TIMEOUT)

    def on_bug(self) -> None:
        self._fail(DialError.ABANDONED)

    def abandon(self) -> None:
        """Give it up: nobody wants the answer any more, and `done` is not called."""
        if not self._over:
            self._over = True
            self._stop_deadline(self)
            self._reactor.discard(self._sock)

    def _fail(self, why: DialError) -> None:
        if self._over:
            return
        self._over = True
        self._stop_deadline(self)
        self._reactor.discard(self._sock)
        self._done(why)
