"""Raw bpf(2): maps, programs, links and pins; knows no map by name and keeps no state.

A library would cost more memory than the whole agent has (libbpf 3 MiB, bcc 72 MiB), and we need
fifteen commands of it. Attribute layouts are those of linux/bpf.h's `union bpf_attr`, little
endian, unused tails left out: the kernel reads them as zero.
"""

import ctypes
import errno
import os
import platform
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from agent.datapath.errors import KernelError, MapFull, NotPermitted, ProgramRejected

_SYSCALL = {"x86_64": 321, "aarch64": 280}.get(platform.machine(), 0)
_libc = ctypes.CDLL(None, use_errno=True)

MAP_CREATE, MAP_LOOKUP, MAP_UPDATE, MAP_DELETE, MAP_NEXT_KEY, PROG_LOAD = 0, 1, 2, 3, 4, 5
OBJECT_PIN, OBJECT_GET, PROG_FD_BY_ID, OBJECT_INFO, PROG_QUERY = 6, 7, 13, 15, 16
BTF_LOAD, MAP_LOOKUP_AND_DELETE, MAP_LOOKUP_BATCH = 18, 21, 24
LINK_CREATE, LINK_UPDATE = 28, 29
LINK_FD_BY_ID, LINK_NEXT_ID, LINK_DETACH = 30, 31, 34

LINK_TYPE_CGROUP, LINK_TYPE_NETNS, LINK_TYPE_TCX = 3, 5, 11
_MAP_TYPE_SK_STORAGE = 24
_FLAG_NO_PREALLOC = 1  # BPF_F_NO_PREALLOC, demanded of socket storage
_FLAG_REPLACE = 4  # BPF_F_REPLACE: only if the link still holds the program we read
_NAME_BYTES = 15
# The verifier's log of our largest program, 600 instructions at two lines each, fits several times.
_VERIFIER_LOG_BYTES = 1 << 20
_VERIFIER_TAIL_LINES = 12
# Programs on one hook of one cgroup; the kernel's own limit (BPF_CGROUP_MAX_PROGS).
_QUERY_PROGRAMS_MAX = 64
_PROGRAM_MAPS_MAX = 64  # also the kernel's (MAX_USED_MAPS)
# Entries counted with one call: 0.5 MiB of our widest values, and 32 calls for the largest map.
_BATCH_ENTRIES = 1024


def _try(command: int, attributes: bytes | bytearray) -> tuple[int, int, bytes]:
    """(result, errno, what the kernel made of the attributes)"""
    if not _SYSCALL:
        raise KernelError(f"bpf: no system call number known for {platform.machine()}")
    buffer = ctypes.create_string_buffer(bytes(attributes), len(attributes))
    result = int(_libc.syscall(_SYSCALL, command, buffer, len(attributes)))
    return result, ctypes.get_errno() if result < 0 else 0, buffer.raw


def _call(command: int, attributes: bytes | bytearray, what: str) -> tuple[int, bytes]:
    result, number, answer = _try(command, attributes)
    if result < 0:
        if number == errno.EPERM:
            raise NotPermitted(what, number)
        if number in (errno.E2BIG, errno.ENOSPC) and command == MAP_UPDATE:
            raise MapFull(what, number)
        raise KernelError(what, number)
    return result, answer


def _buffer(data: bytes) -> ctypes.Array[ctypes.c_char]:
    return ctypes.create_string_buffer(data, max(len(data), 1))


def _name(name: str) -> bytes:
    return name.encode()[:_NAME_BYTES].ljust(_NAME_BYTES + 1, b"\0")


def object_info(fd: int, size_bytes: int) -> bytes:
    """The first bytes of the kernel's description of a map, program or link."""
    info = _buffer(bytes(size_bytes))
    _call(OBJECT_INFO, struct.pack("<IIQ", fd, size_bytes, ctypes.addressof(info)), "object info")
    return info.raw


def pinned(path: Path) -> int:
    """A new fd of what is pinned there."""
    name = _buffer(os.fsencode(path) + b"\0")
    return _call(OBJECT_GET, struct.pack("<QII", ctypes.addressof(name), 0, 0), f"open {path}")[0]


class KernelObject:
    """One fd, closed once."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    @classmethod
    def open(cls, path: Path) -> Self:
        return cls(pinned(path))

    def pin(self, path: Path) -> None:
        name = _buffer(os.fsencode(path) + b"\0")
        _call(OBJECT_PIN, struct.pack("<QII", ctypes.addressof(name), self.fd, 0), f"pin {path}")

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


def _socket_storage_types(value_bytes: int) -> bytes:
    """The smallest BTF that socket storage demands: an int key, a struct of n bytes as value."""
    strings = b"\0int\0byte\0value\0bytes\0"
    integer, byte, value, member = 1, 5, 10, 16  # offsets into `strings`
    types = struct.pack("<IIII", integer, 1 << 24, 4, 1 << 24 | 32)  # 1: signed, 32 bits
    types += struct.pack("<IIII", byte, 1 << 24, 1, 8)  # 2: unsigned, 8 bits
    types += struct.pack("<IIIIII", 0, 3 << 24, 0, 2, 1, value_bytes)  # 3: array of type 2
    types += struct.pack("<IIIIII", value, 4 << 24 | 1, value_bytes, member, 3, 0)  # 4: struct
    header = struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(types), len(types), len(strings))
    return header + types + strings


def _load_types(blob: bytes) -> int:
    data = _buffer(blob)
    attributes = struct.pack("<QQIII", ctypes.addressof(data), 0, len(blob), 0, 0)
    return _call(BTF_LOAD, attributes, "load the type description of socket storage")[0]


class Map(KernelObject):
    """A map of any type; keys and values are bytes of the right length."""

    def __init__(self, fd: int) -> None:
        super().__init__(fd)
        self.type, self.id, self.key_bytes, self.value_bytes, self.max_entries = struct.unpack(
            "<IIIII", object_info(fd, 20)
        )

    @classmethod
    def create(
        cls, map_type: int, key_bytes: int, value_bytes: int, max_entries: int, *, name: str
    ) -> Self:
        flags, types_fd, key_type, value_type = 0, 0, 0, 0
        if map_type == _MAP_TYPE_SK_STORAGE:
            flags, types_fd = _FLAG_NO_PREALLOC, _load_types(_socket_storage_types(value_bytes))
            key_type, value_type = 1, 4
        attributes = struct.pack("<IIIII", map_type, key_bytes, value_bytes, max_entries, flags)
        attributes += struct.pack("<II16s", 0, 0, _name(name))
        attributes += struct.pack("<IIII", 0, types_fd, key_type, value_type)
        try:
            return cls(_call(MAP_CREATE, attributes, f"create map {name}")[0])
        finally:
            if types_fd:
                os.close(types_fd)

    def _element(self, command: int, key: bytes, value_bytes: int, what: str) -> bytes:
        assert len(key) == self.key_bytes, (len(key), self.key_bytes)
        keys, values = _buffer(key), _buffer(bytes(value_bytes))
        pointers = (ctypes.addressof(keys), ctypes.addressof(values))
        _call(command, struct.pack("<IxxxxQQQ", self.fd, *pointers, 0), what)
        return values.raw[:value_bytes]

    def lookup(self, key: bytes, value_bytes: int | None = None) -> bytes | None:
        """`value_bytes` differs from the map's own for per-CPU maps only."""
        size = self.value_bytes if value_bytes is None else value_bytes
        try:
            return self._element(MAP_LOOKUP, key, size, "map lookup")
        except KernelError as exc:
            if exc.number == errno.ENOENT:
                return None
            raise

    def pop(self, key: bytes) -> bytes | None:
        try:
            return self._element(MAP_LOOKUP_AND_DELETE, key, self.value_bytes, "map pop")
        except KernelError as exc:
            if exc.number == errno.ENOENT:
                return None
            raise

    def update(self, key: bytes, value: bytes) -> None:
        assert len(key) == self.key_bytes, (len(key), self.key_bytes)
        assert len(value) == self.value_bytes, (len(value), self.value_bytes)
        keys, values = _buffer(key), _buffer(value)
        pointers = (ctypes.addressof(keys), ctypes.addressof(values))
        _call(MAP_UPDATE, struct.pack("<IxxxxQQQ", self.fd, *pointers, 0), "map update")

    def delete(self, key: bytes) -> bool:
        """False: it was not there."""
        assert len(key) == self.key_bytes, (len(key), self.key_bytes)
        keys = _buffer(key)
        attributes = struct.pack("<IxxxxQ", self.fd, ctypes.addressof(keys))
        try:
            _call(MAP_DELETE, attributes, "map delete")
        except KernelError as exc:
            if exc.number == errno.ENOENT:
                return False
            raise
        return True

    def __iter__(self) -> Iterator[bytes]:
        """Its keys, at most `max_entries`, so that a map which changes meanwhile cannot hold us."""
        following = _buffer(bytes(self.key_bytes))
        previous = 0
        current = _buffer(bytes(self.key_bytes))
        for _ in range(self.max_entries):
            pointers = (previous, ctypes.addressof(following))
            try:
                _call(MAP_NEXT_KEY, struct.pack("<IxxxxQQQ", self.fd, *pointers, 0), "map keys")
            except KernelError as exc:
                if exc.number == errno.ENOENT:
                    return
                raise
            key = following.raw[: self.key_bytes]
            yield key
            ctypes.memmove(current, key, self.key_bytes)
            previous = ctypes.addressof(current)

    def count(self) -> int:
        """Entries of a hash map, many with each call: one key at a time costs 4 µs each."""
        keys = _buffer(bytes(self.key_bytes * _BATCH_ENTRIES))
        values = _buffer(bytes(self.value_bytes * _BATCH_ENTRIES))
        places = (_buffer(bytes(8)), _buffer(bytes(8)))  # where a call ended, the next one begins
        total, before = 0, 0
        # Twice the entries: a map that changes meanwhile cannot hold us.
        for turn in range(2 + 2 * self.max_entries // _BATCH_ENTRIES):
            after = ctypes.addressof(places[turn % 2])
            pointers = (before, after, ctypes.addressof(keys), ctypes.addressof(values))
            attributes = struct.pack("<QQQQIIQQ", *pointers, _BATCH_ENTRIES, self.fd, 0, 0)
            result, number, answer = _try(MAP_LOOKUP_BATCH, attributes)
            if result < 0 and number != errno.ENOENT:
                return sum(1 for _ in self)  # a kernel without batches for this type of map
            total += struct.unpack_from("<I", answer, 32)[0]
            if result < 0:
                break
            before = after
        return total


@dataclass(frozen=True, slots=True)
class ProgramInfo:
    id: int
    tag: bytes  # the kernel's hash of the instructions, map fds left out
    maps: frozenset[int]  # ids
    name: str


def program_info(fd: int) -> ProgramInfo:
    ids = (ctypes.c_uint32 * _PROGRAM_MAPS_MAX)()
    info = ctypes.create_string_buffer(80)
    # In: where the map ids may go. The kernel fills the rest.
    struct.pack_into("<IQ", info, 52, len(ids), ctypes.addressof(ids))
    _call(OBJECT_INFO, struct.pack("<IIQ", fd, len(info), ctypes.addressof(info)), "program info")
    (program_id,) = struct.unpack_from("<I", info, 4)
    (map_count,) = struct.unpack_from("<I", info, 52)
    name = info.raw[64:80].split(b"\0")[0].decode()
    return ProgramInfo(program_id, info.raw[8:16], frozenset(ids[:map_count]), name)


def program_by_id(program_id: int) -> int:
    attributes = struct.pack("<III", program_id, 0, 0)
    return _call(PROG_FD_BY_ID, attributes, f"open program {program_id}")[0]


class Program(KernelObject):
    @classmethod
    def load(cls, program_type: int, attach_type: int, code: bytes, *, name: str) -> Self:
        """Silent first: the log is asked for only when there is something to read in it."""
        instructions, license_text = _buffer(code), _buffer(b"GPL\0")

        def attempt(log: ctypes.Array[ctypes.c_char] | None) -> int:
            attributes = struct.pack(
                "<IIQQIIQII16sII",
                program_type,
                len(code) // 8,
                ctypes.addressof(instructions),
                ctypes.addressof(license_text),
                1 if log is not None else 0,
                len(log) if log is not None else 0,
                ctypes.addressof(log) if log is not None else 0,
                0,
                0,
                _name(name),
                0,
                attach_type,
            )
            return _call(PROG_LOAD, attributes, f"load program {name}")[0]

        try:
            return cls(attempt(None))
        except NotPermitted:
            raise
        except KernelError as refusal:
            log = _buffer(bytes(_VERIFIER_LOG_BYTES))
            try:
                return cls(attempt(log))
            except KernelError:
                lines = log.value.decode(errors="replace").strip().splitlines()
                tail = "\n".join(lines[-_VERIFIER_TAIL_LINES:])
                raise ProgramRejected(f"program {name}", refusal.number, tail) from refusal

    def info(self) -> ProgramInfo:
        return program_info(self.fd)


@dataclass(frozen=True, slots=True)
class LinkInfo:
    type: int
    id: int
    program_id: int
    target: int  # cgroup id, netns inode or ifindex, by type
    attach_type: int


def link_info(fd: int) -> LinkInfo:
    info = object_info(fd, 32)
    link_type, link_id, program_id = struct.unpack_from("<III", info)
    if link_type in (LINK_TYPE_NETNS, LINK_TYPE_TCX):
        target, attach_type = struct.unpack_from("<II", info, 16)
    else:
        target, attach_type = struct.unpack_from("<QI", info, 16)
    return LinkInfo(link_type, link_id, program_id, target, attach_type)


class Link(KernelObject):
    """A program on its hook, for as long as somebody (a pin, an fd) holds the link."""

    @classmethod
    def create(cls, program: Program, target: int, attach_type: int, *, what: str) -> Self:
        """`target` is an fd, or the index of a device of the caller's network namespace."""
        # The tail is tcx's: behind no other program in particular, whatever is there already.
        attributes = struct.pack("<IIIIIIQ", program.fd, target, attach_type, 0, 0, 0, 0)
        return cls(_call(LINK_CREATE, attributes, f"attach {what}")[0])

    def info(self) -> LinkInfo:
        return link_info(self.fd)

    def replace(self, program: Program) -> bool:
        """Swap the program in one step, no gap; False when the link already runs that code
        on those maps."""
        current = program_by_id(self.info().program_id)
        try:
            ours, theirs = program.info(), program_info(current)
            if (ours.tag, ours.maps) == (theirs.tag, theirs.maps):
                return False
            self.update(program, current)
        finally:
            os.close(current)
        return True

    def update(self, program: Program, current_fd: int) -> None:
        attributes = struct.pack("<IIII", self.fd, program.fd, _FLAG_REPLACE, current_fd)
        _call(LINK_UPDATE, attributes, "replace a program")

    def detach(self) -> None:
        """Off its hook when this returns. The last pin's end does it too, but some time later."""
        _call(LINK_DETACH, struct.pack("<I", self.fd), "detach a program")


def links() -> Iterator[LinkInfo]:
    """Every BPF link of the machine."""
    link_id = 0
    while True:
        try:
            _, answer = _call(LINK_NEXT_ID, struct.pack("<III", link_id, 0, 0), "next link")
            (link_id,) = struct.unpack_from("<I", answer, 4)
            fd, _ = _call(LINK_FD_BY_ID, struct.pack("<III", link_id, 0, 0), "open link")
        except KernelError as exc:
            if exc.number == errno.ENOENT:  # the end, or a link that went away meanwhile
                if exc.args[0].startswith("next link"):
                    return
                continue
            raise
        try:
            yield link_info(fd)
        finally:
            os.close(fd)


def attached_programs(target_fd: int, attach_type: int) -> list[int]:
    """Ids of the programs on one hook, however they were attached."""
    ids = (ctypes.c_uint32 * _QUERY_PROGRAMS_MAX)()
    pointer = ctypes.addressof(ids)
    attributes = struct.pack("<IIIIQI", target_fd, attach_type, 0, 0, pointer, len(ids))
    # The kernel reads and writes a few fields behind prog_cnt: leave room.
    _, answer = _call(PROG_QUERY, attributes + bytes(36), "query programs")
    (found,) = struct.unpack_from("<I", answer, 24)
    return list(ids[:found])


def cpu_count_possible(text: str | None = None) -> int:
    """Per-CPU values have one slot for each *possible* CPU ("0-3,8-11")."""
    if text is None:
        text = Path("/sys/devices/system/cpu/possible").read_text(encoding="ascii")
    return int(text.strip().split(",")[-1].split("-")[-1]) + 1
