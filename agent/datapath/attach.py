"""Programs, and the links that hold them on their hooks, by raw bpf(2); knows no hook by name."""

import ctypes
import errno
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

from agent.datapath import bpfsys
from agent.datapath.bpfsys import KernelObject, buffer
from agent.datapath.errors import DatapathError, NotPermitted, ProgramRejected

LINK_TYPE_NETNS, LINK_TYPE_TCX = 5, 11
_REPLACE = 4  # BPF_F_REPLACE: only if the link still holds the program we read
# The verifier's log of our largest program, 600 instructions at two lines each, fits several times.
# Branches that it walks again make it longer; the larger one is the most that old kernels take.
_VERIFIER_LOG_BYTES = (1 << 20, (1 << 24) - 1)
_VERIFIER_LINES_MAX = 5000  # the reason is at the end
# Programs on one hook of one cgroup; the kernel's own limit (BPF_CGROUP_MAX_PROGS).
_QUERY_PROGRAMS_MAX = 64
_PROGRAM_MAPS_MAX = 64  # also the kernel's (MAX_USED_MAPS)


@dataclass(frozen=True, slots=True)
class ProgramInfo:
    id: int
    tag: bytes  # the kernel's hash of the instructions, map fds left out
    maps: frozenset[int]  # ids
    name: str


def program_info(fd: int) -> ProgramInfo:
    ids = (ctypes.c_uint32 * _PROGRAM_MAPS_MAX)()
    info = ctypes.create_string_buffer(80)
    # In: room for the map ids. The kernel fills the rest.
    struct.pack_into("<IQ", info, 52, len(ids), ctypes.addressof(ids))
    attributes = struct.pack("<IIQ", fd, len(info), ctypes.addressof(info))
    bpfsys.call(bpfsys.OBJECT_INFO, attributes, "program info")
    (program_id,) = struct.unpack_from("<I", info, 4)
    (map_count,) = struct.unpack_from("<I", info, 52)
    name = info.raw[64:80].split(b"\0")[0].decode()
    return ProgramInfo(program_id, info.raw[8:16], frozenset(ids[:map_count]), name)


def program_by_id(program_id: int) -> int | None:
    """A new descriptor of a loaded program; None: it is unloaded."""
    attributes = struct.pack("<III", program_id, 0, 0)
    reply = bpfsys.find(bpfsys.PROG_FD_BY_ID, attributes, f"open program {program_id}")
    return None if reply is None else reply.result


class Program(KernelObject):
    """A loaded program."""

    @classmethod
    def load(cls, program_type: int, attach_type: int, code: bytes, *, name: str) -> Self:
        """Load a program; ProgramRejected with the verifier's log when it refuses.

        Silent at first: a log is asked for only when there is something to read in it.
        """
        try:
            return cls(_load(program_type, attach_type, code, name, None))
        except NotPermitted:
            raise
        except DatapathError as refusal:
            said = ""
            for size_bytes in _VERIFIER_LOG_BYTES:
                log = buffer(bytes(size_bytes))
                try:
                    return cls(_load(program_type, attach_type, code, name, log))
                except DatapathError as again:
                    said = log.value.decode(errors="replace").strip()
                    if again.number != errno.ENOSPC:  # all of it is there
                        break
            lines = said.splitlines()[-_VERIFIER_LINES_MAX:]
            raise ProgramRejected(f"program {name}", refusal.number, "\n".join(lines)) from refusal

    def info(self) -> ProgramInfo:
        return program_info(self.fd)


def _load(
    program_type: int,
    attach_type: int,
    code: bytes,
    name: str,
    log: ctypes.Array[ctypes.c_char] | None,
) -> int:
    instructions, license_text = buffer(code), buffer(b"GPL\0")
    attributes = struct.pack(
        "<IIQQIIQII16sII",
        program_type,
        len(code) // 8,
        ctypes.addressof(instructions),
        ctypes.addressof(license_text),
        0 if log is None else 1,
        0 if log is None else len(log),
        0 if log is None else ctypes.addressof(log),
        0,
        0,
        bpfsys.object_name(name),
        0,
        attach_type,
    )
    return bpfsys.call(bpfsys.PROG_LOAD, attributes, f"load program {name}").result


@dataclass(frozen=True, slots=True)
class LinkInfo:
    type: int
    id: int
    program_id: int
    target: int  # cgroup id, netns inode or ifindex, by type; 0: the target is gone
    attach_type: int


def link_info(fd: int) -> LinkInfo:
    info = bpfsys.object_info(fd, 32)
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
        # The tail is tcx's: last in the list, whichever programs are there already.
        attributes = struct.pack("<IIIIIIQ", program.fd, target, attach_type, 0, 0, 0, 0)
        return cls(bpfsys.call(bpfsys.LINK_CREATE, attributes, f"attach {what}").result)

    def info(self) -> LinkInfo:
        return link_info(self.fd)

    def replace(self, program: Program) -> bool:
        """Swap the program in one step, without a gap.

        False when the link already runs that code on those maps.
        """
        current = program_by_id(self.info().program_id)
        if current is None:
            raise DatapathError("the program of a link is gone")
        try:
            ours, theirs = program.info(), program_info(current)
            if (ours.tag, ours.maps) == (theirs.tag, theirs.maps):
                return False
            self.update(program, current)
        finally:
            os.close(current)
        return True

    def update(self, program: Program, current_fd: int) -> None:
        attributes = struct.pack("<IIII", self.fd, program.fd, _REPLACE, current_fd)
        bpfsys.call(bpfsys.LINK_UPDATE, attributes, "replace a program")

    def detach(self) -> None:
        """Take the program off its hook at once; the end of the last pin takes a while longer."""
        bpfsys.call(bpfsys.LINK_DETACH, struct.pack("<I", self.fd), "detach a program")


def links() -> Iterator[LinkInfo]:
    """Every BPF link of the machine."""
    link_id = 0
    while (following := _next_link(link_id)) is not None:
        link_id = following
        reply = bpfsys.find(bpfsys.LINK_FD_BY_ID, struct.pack("<III", link_id, 0, 0), "open a link")
        if reply is None:
            continue  # it went away meanwhile
        try:
            yield link_info(reply.result)
        finally:
            os.close(reply.result)


def _next_link(link_id: int) -> int | None:
    """The smallest id above this one; None: there is none."""
    reply = bpfsys.find(bpfsys.LINK_NEXT_ID, struct.pack("<III", link_id, 0, 0), "list links")
    return None if reply is None else int(struct.unpack_from("<I", reply.attributes, 4)[0])


def attached_programs(target_fd: int, attach_type: int) -> list[int]:
    """Ids of the programs on one hook, however they were attached."""
    ids = (ctypes.c_uint32 * _QUERY_PROGRAMS_MAX)()
    pointer = ctypes.addressof(ids)
    attributes = struct.pack("<IIIIQI", target_fd, attach_type, 0, 0, pointer, len(ids))
    # The kernel reads and writes a few fields behind prog_cnt: leave room.
    reply = bpfsys.call(bpfsys.PROG_QUERY, attributes + bytes(36), "query programs")
    (found,) = struct.unpack_from("<I", reply.attributes, 24)
    return list(ids[:found])
