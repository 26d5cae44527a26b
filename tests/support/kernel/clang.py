"""The BPF programs by a plain clang of any version: text in, bytecode of each program out.

BCC carries one LLVM, the one of its distribution. Our users' hosts have others, so the tests
compile the same text with every clang that is installed.
"""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from agent.datapath import compile as compiler
from agent.datapath import programs

_SECTION = struct.Struct("<IIQQQQIIQQ")  # Elf64_Shdr
_TYPE_RELOCATIONS = (4, 9)  # SHT_RELA, SHT_REL
_SECTIONS_AT, _SECTION_COUNT_AT, _NAMES_AT = 0x28, 0x3C, 0x3E  # in Elf64_Ehdr


def installed() -> dict[int, str]:
    """Path of each `clang-N` on this host, by N."""
    found = {version: shutil.which(f"clang-{version}") for version in range(11, 30)}
    return {version: path for version, path in found.items() if path}


def compile_image(
    clang: str, flags: Sequence[str], defines: Sequence[str], source: Path = programs.SOURCE
) -> programs.Image:
    """All programs as this clang makes them; CalledProcessError shows what it said."""
    text = "#include <linux/bpf.h>\n" + compiler.program_text(source)
    with tempfile.TemporaryDirectory(prefix="tulle-clang-") as scratch:
        made = Path(scratch, "programs.o")
        command = [clang, "-target", "bpf", "-ffunction-sections", "-x", "c", "-", "-c"]
        command += [f"-isystem/usr/include/{_multiarch()}", "-o", str(made), *flags]
        command += [f"-D{define}" for define in defines]
        subprocess.run(command, input=text, text=True, check=True, capture_output=True)
        sections = dict(_sections(made.read_bytes()))
    return programs.Image(
        clang,
        {
            name: programs.Bytecode(code, tuple((at, to) for at, to in compiler.relocations(code)))
            for name in compiler.PROGRAMS
            for code in [sections[f".text.{name}"]]
        },
    )


def _multiarch() -> str:
    told = subprocess.run(["gcc", "-print-multiarch"], capture_output=True, text=True, check=True)
    return told.stdout.strip()


def _sections(elf: bytes) -> Iterator[tuple[str, bytes]]:
    """Each section with its name; ValueError if the code calls something that is not in it."""
    (start,) = struct.unpack_from("<Q", elf, _SECTIONS_AT)
    count, names_at = (
        struct.unpack_from("<H", elf, at)[0] for at in (_SECTION_COUNT_AT, _NAMES_AT)
    )
    headers = [_SECTION.unpack_from(elf, start + _SECTION.size * index) for index in range(count)]
    names = elf[headers[names_at][4] :]
    for name_at, kind, _, _, offset, size, *_ in headers:
        found = re.match(rb"[^\0]*", names[name_at:])
        name = found[0].decode() if found else ""
        if kind in _TYPE_RELOCATIONS and ".text" in name:
            raise ValueError(f"{name}: a call that no helper serves, such as memcpy")
        yield name, elf[offset : offset + size]
