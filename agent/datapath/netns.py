"""Network namespaces by descriptor: enters one for a moment, reads its cookie; creates none."""

import contextlib
import ctypes
import fcntl
import os
import socket
import struct
from collections.abc import Iterator

from agent.datapath.errors import DatapathError

_CLONE_NEWNET = 0x40000000
_SIOCGSKNS = 0x894C  # ioctl: a new descriptor of a socket's namespace
_SO_NETNS_COOKIE = 71
_libc = ctypes.CDLL(None, use_errno=True)


def _enter(netns_fd: int, what: str) -> None:
    if _libc.setns(netns_fd, _CLONE_NEWNET) != 0:
        raise DatapathError(what, ctypes.get_errno())


@contextlib.contextmanager
def inside(netns_fd: int) -> Iterator[None]:
    """Put this thread into the namespace. Never await inside: the event loop would stay there."""
    with open(f"/proc/self/task/{_thread_id()}/ns/net", "rb") as home:
        _enter(netns_fd, "enter a pod's network namespace")
        try:
            yield
        finally:
            _enter(home.fileno(), "return from a pod's network namespace")


def _thread_id() -> int:
    return int(_libc.gettid())


def cookie_of_socket(fd: int) -> int:
    with borrowed(fd) as sock:
        (cookie,) = struct.unpack("=Q", sock.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8))
    return int(cookie)


def own_cookie() -> int:
    """Cookie of the caller's namespace."""
    with socket.socket() as sock:
        return cookie_of_socket(sock.fileno())


def inode_of_socket(fd: int) -> int:
    """Inode of a socket's namespace, comparable with fstat() of a namespace's descriptor."""
    netns_fd = fcntl.ioctl(fd, _SIOCGSKNS)
    try:
        return os.fstat(netns_fd).st_ino
    finally:
        os.close(netns_fd)


@contextlib.contextmanager
def borrowed(fd: int) -> Iterator[socket.socket]:
    """The caller's descriptor as a socket object, which leaves it open."""
    sock = socket.socket(fileno=fd)
    try:
        yield sock
    finally:
        sock.detach()
