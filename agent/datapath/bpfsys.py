"""Raw bpf(2): the system call, its errors, and kernel objects as descriptors and pins.

A library would cost more memory than the whole agent has (libbpf 3 MiB, bcc 72 MiB), and we need
fifteen commands of it. Attributes are laid out as linux/bpf.h's `union bpf_attr`, little endian;
unused tails are left out, which the kernel reads as zero.
"""

import ctypes
import errno
import os
import platform
import struct
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from agent.datapath.errors import DatapathError, MapFull, NotPermitted

_SYSCALL = {"x86_64": 321, "aarch64": 280}.get(platform.machine(), 0)
_libc = ctypes.CDLL(None, use_errno=True)

MAP_CREATE, MAP_LOOKUP, MAP_UPDATE, MAP_DELETE, MAP_NEXT_KEY, PROG_LOAD = 0, 1, 2, 3, 4, 5
OBJECT_PIN, OBJECT_GET, PROG_FD_BY_ID, OBJECT_INFO, PROG_QUERY = 6, 7, 13, 15, 16
BTF_LOAD, MAP_LOOKUP_BATCH = 18, 24
LINK_CREATE, LINK_UPDATE = 28, 29
LINK_FD_BY_ID, LINK_NEXT_ID, LINK_DETACH = 30, 31, 34

_NAME_BYTES = 15


class BpfReply(NamedTuple):
    """The kernel's reply to one command."""

    result: int  # often a new descriptor
    number: int  # errno; 0: it succeeded
    attributes: bytes  # as the kernel left them


def attempt(command: int, attributes: bytes | bytearray) -> BpfReply:
    """Run a command; the caller looks at the error number."""
    if not _SYSCALL:
        raise DatapathError(f"bpf: no system call number known for {platform.machine()}")
    memory = ctypes.create_string_buffer(bytes(attributes), len(attributes))
    result = int(_libc.syscall(_SYSCALL, command, memory, len(attributes)))
    return BpfReply(result, ctypes.get_errno() if result < 0 else 0, memory.raw)


def call(command: int, attributes: bytes | bytearray, what: str) -> BpfReply:
    """Run a command that must succeed; DatapathError, or a kind of it, names `what` it was for."""
    reply = attempt(command, attributes)
    if reply.number == errno.EPERM:
        raise NotPermitted(what, reply.number)
    if reply.number in (errno.E2BIG, errno.ENOSPC) and command == MAP_UPDATE:
        raise MapFull(what, reply.number)
    if reply.number:
        raise DatapathError(what, reply.number)
    return reply


def repeat(command: int, attributes: ctypes.Array[ctypes.c_char]) -> int:
    """Run a command whose attributes are in place; its error number, 0: done. For the many calls
    of one loop: memory of their own takes longer than most of them."""
    result = int(_libc.syscall(_SYSCALL, command, attributes, len(attributes)))
    return ctypes.get_errno() if result < 0 else 0


def find(command: int, attributes: bytes | bytearray, what: str) -> BpfReply | None:
    """Run a command about something that may not be there: None then (ENOENT)."""
    try:
        return call(command, attributes, what)
    except DatapathError as exc:
        if exc.number == errno.ENOENT:
            return None
        raise


def buffer(data: bytes) -> ctypes.Array[ctypes.c_char]:
    """Memory for the kernel to read or write, filled with `data`; never empty."""
    return ctypes.create_string_buffer(data, max(len(data), 1))


def object_name(name: str) -> bytes:
    """The name as an attribute: cut to what the kernel keeps, and padded."""
    return name.encode()[:_NAME_BYTES].ljust(_NAME_BYTES + 1, b"\0")


def object_info(fd: int, size_bytes: int) -> bytes:
    """The first bytes of the kernel's description of a map, program or link."""
    info = buffer(bytes(size_bytes))
    call(OBJECT_INFO, struct.pack("<IIQ", fd, size_bytes, ctypes.addressof(info)), "object info")
    return info.raw


class KernelObject:
    """One descriptor, closed once."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    @classmethod
    def open(cls, path: Path) -> Self:
        """The object that is pinned there."""
        name = buffer(os.fsencode(path) + b"\0")
        attributes = struct.pack("<QII", ctypes.addressof(name), 0, 0)
        return cls(call(OBJECT_GET, attributes, f"open {path}").result)

    def pin(self, path: Path) -> None:
        name = buffer(os.fsencode(path) + b"\0")
        attributes = struct.pack("<QII", ctypes.addressof(name), self.fd, 0)
        call(OBJECT_PIN, attributes, f"pin {path}")

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
