"""Compiler of bpf/*.c to bytecode in a JSON file: its own program, which leaves the kernel alone.

It runs in the system's interpreter, because python3-bpfcc belongs to the distribution and because
`import bcc` costs 72 MiB, which no long-lived process should keep:

    /usr/bin/python3 compile.py --source bpf --cache /var/cache/tulle/bpf --define TULLE_X

An image of the container has no compiler: `--every-subset` made all that a kernel may want when it
was built, and they are looked for first.

Bytecode is good for every machine of a byte order, as the programs read nothing of a kernel but
UAPI contexts: an image for another machine is compiled on this one. (Compiled there, instructions
are in another order, for clang starts from the types of its host.)

It prints the path of the image. The name of an image is a hash of everything that shapes it
(source, bcc's version, byte order, defines), so a hit needs no compiler; a checksum inside finds
torn and altered files, which are compiled again. Python 3.9 and bcc 0.18 are enough.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import os
import struct
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

FORMAT = 1
DEFAULT_CACHE = "/var/cache/tulle/bpf"
READY = "/usr/lib/tulle/bpf"  # made beforehand, by whatever compiler

# Headers first, then one hook per file: bcc makes programs of the main text's functions only.
HEADERS = ("sizes.h", "maps.h", "address.h", "verdict.h", "kernel.h", "direct.h", "flow.h")
HOOK_FILES = (
    "connect.c",
    "sockops.c",
    "peername.c",
    "sockopt.c",
    "bind.c",
    "route.c",
    "lookup.c",
    "shortcut.c",
    "probe.c",
)
PROGRAMS = (
    "connect4",
    "connect6",
    "getpeername4",
    "getpeername6",
    "sockops",
    "getsockopt",
    "setsockopt",
    "bind4",
    "bind6",
    "sourceroute",
    "sklookup",
    "shortcut",
    "probe",
)

# Stand-ins for what bcc's own headers include from a kernel tree. Our programs use UAPI contexts
# only, so they need no linux-headers package, and one image fits every kernel.
_INTEGERS = "".join(
    f"typedef {ctype} {prefix}{name};\n"
    for name, ctype in (
        ("u8", "unsigned char"),
        ("s16", "short"),
        ("u16", "unsigned short"),
        ("s32", "int"),
        ("u32", "unsigned int"),
        ("s64", "long long"),
        ("u64", "unsigned long long"),
        ("s8", "signed char"),
    )
    for prefix in ("__", "")
)
_ORDERED = "".join(f"typedef __u{bits} __le{bits}, __be{bits};\n" for bits in (16, 32, 64))
STUB_TREE = {
    "linux/kconfig.h": "#define CONFIG_BPF_SYSCALL 1\n#define CONFIG_64BIT 1\n",
    "linux/types.h": "#pragma once\n" + _INTEGERS + _ORDERED + "typedef __u16 __sum16;\n"
    "typedef __u32 __wsum;\ntypedef __SIZE_TYPE__ size_t;\ntypedef unsigned long uintptr_t;\n"
    "typedef long ssize_t;\ntypedef _Bool bool;\ntypedef int pid_t;\n"
    "#define NULL ((void *)0)\n#define __aligned_u64 __u64 __attribute__((aligned(8)))\n"
    "enum { false, true };\n",
    "linux/bpf_common.h": "#pragma once\n#define BPF_CLASS(c) ((c) & 7)\n"
    + "".join(
        f"#define BPF_{name} {value}\n"
        for name, value in (
            ("LD", 0),
            ("LDX", 1),
            ("ST", 2),
            ("STX", 3),
            ("ALU", 4),
            ("JMP", 5),
            ("W", 0),
            ("H", 8),
            ("B", 16),
        )
    ),
    "linux/version.h": "#define KERNEL_VERSION(a, b, c) (((a) << 16) + ((b) << 8) + (c))\n"
    "#define LINUX_VERSION_CODE KERNEL_VERSION(6, 1, 0)\n",
    "asm/page.h": "#define PAGE_SIZE 4096UL\n",
    "uapi/linux/ptrace.h": "struct pt_regs;\n",
    "linux/log2.h": "",
    "uapi/linux/bpf.h": "",
    "uapi/linux/if_packet.h": "",
    "uapi/linux/if_ether.h": "",
}

# Images of 16 KiB each: this version's, the last ones for a rollback, and some experiments.
IMAGES_KEPT_MAX = 16

INSTRUCTION_BYTES = 8
LOAD_IMM64 = 0x18
PSEUDO_MAP_FD = 1


def program_text(source: Path) -> str:
    """All programs as one text; #line marks keep error positions true to the files."""
    parts = []
    for name in HEADERS + HOOK_FILES:
        parts.append(f'#line 1 "{name}"\n')
        lines = (source / name).read_text().splitlines()
        # Joined files need no include of one another; a blank keeps the line numbers.
        parts += ["\n" if line.startswith('#include "') else line + "\n" for line in lines]
    return "".join(parts)


def relocations(code: bytes) -> list[list[int]]:
    """[instruction index, map id] of every place where the loader puts a map's descriptor."""
    return [
        [offset // INSTRUCTION_BYTES, struct.unpack_from("<i", code, offset + 4)[0]]
        for offset in range(0, len(code), INSTRUCTION_BYTES)
        if code[offset] == LOAD_IMM64 and code[offset + 1] >> 4 == PSEUDO_MAP_FD
    ]


def cache_key(text: str, compiler: str, defines: list[str]) -> str:
    """Hash of everything that shapes the image, in hex: a file name."""
    parts = [str(FORMAT), text, compiler, sys.byteorder, " ".join(sorted(defines))]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def seal(image: dict[str, Any]) -> bytes:
    """The image as bytes, first line its checksum."""
    body = json.dumps(image, sort_keys=True).encode()
    return hashlib.sha256(body).hexdigest().encode() + b"\n" + body + b"\n"


def unseal(data: bytes) -> dict[str, Any] | None:
    """The image; None when a single bit differs from what was written."""
    checksum, newline, body = data.partition(b"\n")
    body = body[:-1]
    if not newline or hashlib.sha256(body).hexdigest().encode() != checksum:
        return None
    image: dict[str, Any] = json.loads(body.decode())
    return image if image.get("format") == FORMAT else None


def read_cached(path: Path) -> dict[str, Any] | None:
    try:
        return unseal(path.read_bytes())
    except (OSError, ValueError):
        return None


def write_atomically(path: Path, data: bytes) -> None:
    """Write so that readers see the whole file or none, even if others compile it as well."""
    handle, temporary = tempfile.mkstemp(dir=str(path.parent), prefix=".image-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, str(path))
    except BaseException:
        os.unlink(temporary)
        raise


def prune(cache: Path) -> None:
    """Remove the oldest images beyond `IMAGES_KEPT_MAX`."""
    images = sorted(cache.glob("*.json"), key=lambda image: image.stat().st_mtime, reverse=True)
    for image in images[IMAGES_KEPT_MAX:]:
        image.unlink()


def compile_text(text: str, defines: list[str], scratch: str) -> dict[str, Any]:
    """Compile every program with bcc on the stub tree; its bytecode and relocations."""
    for name, content in STUB_TREE.items():
        path = Path(scratch) / "include" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    os.environ["BCC_KERNEL_SOURCE"] = str(scratch)  # bcc has no argument for it

    from bcc import BPF  # after the environment is set; the only import of bcc in the project

    flags = ["-D" + define for define in defines]
    module = BPF(text=text, cflags=flags)
    programs = {}
    for name in PROGRAMS:
        code = module.dump_func(name)
        programs[name] = {"code": code.hex(), "maps": relocations(code)}
    return programs


def compiler_version() -> str:
    import bcc

    return f"bcc {bcc.__version__}"


def build_image(text: str, defines: list[str]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="tulle-bpf-") as scratch:
        programs = compile_text(text, defines, scratch)
    return {"format": FORMAT, "compiler": compiler_version(), "programs": programs}


Build = Callable[[str, list[str]], dict[str, Any]]


def ready_path(folder: Path, text: str, defines: list[str]) -> Path:
    """The file of an image that was made beforehand: the compiler does not count."""
    return folder / (cache_key(text, "", defines) + ".json")


def make_ready(
    source: Path, folder: Path, features: list[str], build: Build = build_image
) -> list[Path]:
    """Compile for every kernel there may be: each set of the features."""
    text = program_text(source)
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    for size in range(len(features) + 1):
        for defines in map(list, itertools.combinations(features, size)):
            made.append(ready_path(folder, text, defines))
            write_atomically(made[-1], seal(build(text, defines)))
    return made


def image_path(source: Path, cache: Path, defines: list[str], ready: Path = Path(READY)) -> Path:
    """The image's file, made beforehand or in the cache; compiled first if it is missing or
    damaged."""
    text = program_text(source)
    beforehand = ready_path(ready, text, defines)
    if read_cached(beforehand) is not None:
        return beforehand
    compiler = compiler_version()
    path = cache / (cache_key(text, compiler, defines) + ".json")
    if read_cached(path) is None:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, seal(build_image(text, defines)))
        prune(path.parent)
    return path


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="compile the BPF programs into the cache")
    parser.add_argument("--source", required=True, help="folder of the C files")
    parser.add_argument("--cache", default=DEFAULT_CACHE)
    parser.add_argument("--define", action="append", default=[], help="feature of this kernel")
    parser.add_argument(
        "--every-subset", action="store_true", help="make an image for each set of the features"
    )
    options = parser.parse_args(arguments)
    source, cache = Path(options.source), Path(options.cache)
    if options.every_subset:
        found = make_ready(source, cache, options.define)
    else:
        found = [image_path(source, cache, options.define)]
    sys.stdout.write("".join(f"{path}\n" for path in found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
