"""Bytecode to loaded programs: the types of hooks, and the features of this kernel.

The compiler is a process of its own (compile.py) that leaves an image in the cache; this module
reads the image and loads programs from it. It attaches nothing.
"""

import hashlib
import json
import mmap
import signal
import struct
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import bpf
from agent.datapath.attach import Program, attached_programs
from agent.datapath.errors import CompileFailed, DatapathError, NotPermitted
from agent.datapath.maps import Map
from bpf import layout

SOURCE = Path(bpf.__file__).parent
# The distribution's interpreter: python3-bpfcc lives there, and never in a venv.
SYSTEM_PYTHON = "/usr/bin/python3"
# Run, never imported: bcc must not come near this process.
COMPILER = Path(__file__).with_name("compile.py")
# It takes 0.3 s, and some seconds when cold on a small busy node; a hung one must not hang us.
COMPILE_TIMEOUT_S = 60.0
_MESSAGE_CHARACTERS_MAX = 2000

_TYPE_SCHED_CLS = 3
_TYPE_SOCK_OPS, _TYPE_SOCK_ADDR, _TYPE_SOCKOPT, _TYPE_SK_LOOKUP = 13, 18, 25, 30
_LOOPBACK = 1  # its index in every network namespace


@dataclass(frozen=True, slots=True)
class Hook:
    type: int
    attach_type: int


HOOKS: dict[str, Hook] = {
    "sockops": Hook(_TYPE_SOCK_OPS, 3),
    "getpeername4": Hook(_TYPE_SOCK_ADDR, 29),
    "getpeername6": Hook(_TYPE_SOCK_ADDR, 30),
    "connect4": Hook(_TYPE_SOCK_ADDR, 10),
    "connect6": Hook(_TYPE_SOCK_ADDR, 11),
    "getsockopt": Hook(_TYPE_SOCKOPT, 21),
    "setsockopt": Hook(_TYPE_SOCKOPT, 22),
    "bind4": Hook(_TYPE_SOCK_ADDR, 8),
    "bind6": Hook(_TYPE_SOCK_ADDR, 9),
    "sourceroute": Hook(_TYPE_SOCKOPT, 22),
    "sklookup": Hook(_TYPE_SK_LOOKUP, 36),
    "shortcut": Hook(_TYPE_SCHED_CLS, 46),
    "probe": Hook(_TYPE_SOCK_OPS, 3),
}
# In the order of attaching: those that publish and answer are there before any that captures.
ROOT_HOOKS = ("sockops", "getpeername4", "getpeername6", "sourceroute", "connect4", "connect6")
CONNECT_HOOKS = ("connect4", "connect6")
ZTUNNEL_HOOKS = ("getsockopt", "setsockopt", "bind4", "bind6")


@dataclass(frozen=True, slots=True)
class Bytecode:
    code: bytes
    maps: tuple[tuple[int, int], ...]  # (instruction index, map id)


@dataclass(frozen=True, slots=True)
class Image:
    """Compiled programs by name."""

    compiler: str
    programs: Mapping[str, Bytecode]

    def uses(self, map_name: str) -> bool:
        number = layout.MAPS[map_name].id
        return any(number == used for each in self.programs.values() for _, used in each.maps)

    def load(self, name: str, maps: Mapping[str, Map]) -> Program:
        bytecode, hook = self.programs[name], HOOKS[name]
        code = bytearray(bytecode.code)
        for index, map_id in bytecode.maps:
            struct.pack_into("<i", code, index * 8 + 4, maps[layout.MAP_NAMES[map_id]].fd)
        return Program.load(hook.type, hook.attach_type, bytes(code), name=f"tulle_{name}")


def parse_image(data: bytes) -> Image:
    checksum, _, body = data.partition(b"\n")
    body = body.removesuffix(b"\n")
    if hashlib.sha256(body).hexdigest().encode() != checksum:
        raise CompileFailed("the compiled image is damaged")
    content = json.loads(body)
    return Image(
        content["compiler"],
        {
            name: Bytecode(
                bytes.fromhex(program["code"]), tuple((at, to) for at, to in program["maps"])
            )
            for name, program in content["programs"].items()
        },
    )


# The direct path needs one thing more than capture: a way to report its connections.
DIRECT_FEATURE = "TULLE_HAS_DIRECT"

# One instruction: opcode, registers, offset, immediate. r0 = 1; exit.
_RETURN_ONE = struct.pack("<BBhi", 0xB7, 0, 0, 1) + struct.pack("<BBhi", 0x95, 0, 0, 0)
_PROBES = {
    # r1 = -1; call bpf_set_retval
    "TULLE_HAS_SET_RETVAL": (
        "connect4",
        struct.pack("<BBhi", 0xB7, 1, 0, -1) + struct.pack("<BBhi", 0x85, 0, 0, 186) + _RETURN_ONE,
    ),
    # r1 = ctx->sk; if r1: call bpf_skc_to_mptcp_sock
    "TULLE_HAS_MPTCP": (
        "connect4",
        struct.pack("<BBhi", 0x79, 0x11, 64, 0)
        + struct.pack("<BBhi", 0x15, 1, 1, 0)
        + struct.pack("<BBhi", 0x85, 0, 0, 196)
        + _RETURN_ONE,
    ),
    # r0 = ctx->ingress_ifindex
    "TULLE_HAS_INGRESS_IFINDEX": (
        "sklookup",
        struct.pack("<BBhi", 0x61, 0x10, 64, 0) + _RETURN_ONE,
    ),
}

FEATURES = (DIRECT_FEATURE, *_PROBES)


def _has_ring_buffer() -> bool:
    try:
        Map.create(layout.MapType.RINGBUF, 0, 0, mmap.PAGESIZE, name="probe").close()
    except NotPermitted:
        raise
    except DatapathError:
        return False
    return True


def kernel_features() -> tuple[str, ...]:
    """Defines to compile with, found by loading probes: version numbers of kernels mislead."""
    found = [DIRECT_FEATURE] if _has_ring_buffer() else []
    for define, (hook_name, code) in _PROBES.items():
        hook = HOOKS[hook_name]
        try:
            Program.load(hook.type, hook.attach_type, code, name="tulle_probe").close()
        except NotPermitted:
            raise
        except DatapathError:
            continue
        found.append(define)
    return tuple(found)


def failure(done: subprocess.CompletedProcess[str]) -> CompileFailed:
    """The error of a compiler that ended badly: its words about our files, or its signal."""
    said = (
        done.stderr.partition("Traceback ")[0].strip() or done.stderr.strip()
    )  # no bcc: last line
    if done.returncode < 0:  # LLVM may crash and say nothing
        said += f" ended by {signal.strsignal(-done.returncode) or -done.returncode}"
    return CompileFailed(f"compile the BPF programs: {said.strip()[-_MESSAGE_CHARACTERS_MAX:]}")


def has_tcx() -> bool:
    """True where the shortcut can be attached: such a kernel answers what is on a device's hook."""
    try:
        attached_programs(_LOOPBACK, HOOKS["shortcut"].attach_type)
    except NotPermitted:
        raise
    except DatapathError:
        return False
    return True


def compile_image(source: Path, cache: Path, defines: tuple[str, ...]) -> Image:
    """Run the compiler, which knows the cache, and read the image; CompileFailed if it fails."""
    command = [SYSTEM_PYTHON, "-I", "-B", str(COMPILER)]
    command += ["--source", str(source), "--cache", str(cache)]
    for define in defines:
        command += ["--define", define]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=COMPILE_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise CompileFailed(f"run the BPF compiler: {exc}") from exc
    if done.returncode != 0:
        raise failure(done)
    return parse_image(Path(done.stdout.strip()).read_bytes())
