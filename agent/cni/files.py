"""Our two files on the host: the configuration that sorts first, and the plugin's program.

Both are written beside their place and renamed, under names that no runtime reads. A program that
runs keeps its old file. The order of coming is program, configuration; that of leaving is the
reverse, and the program stays while any configuration still names it.
"""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from agent.cni.conflist import (
    CONFIG_BYTES_MAX,
    ENDINGS,
    OUR_NAMES,
    PLUGIN,
    UnusablePrimary,
    primary_of,
)
from control.kit.errors import ConfigError
from control.kit.files import write_atomic

PROGRAM_BYTES_MAX = 16 * 1024 * 1024
NAMES_MAX = 4096  # files in a folder of configurations


class PluginMissing(ConfigError):
    """The program that is to be installed is not there, or is none."""

    reason: ClassVar[str] = "cni_plugin_missing"


@dataclass(frozen=True, slots=True)
class Found:
    """The primary configuration as it is now."""

    name: str
    data: bytes
    mode: int


def primary_in(folder: Path) -> Found | None:
    """None: there is none, or no folder. UnusablePrimary: it cannot be read."""
    try:
        name = primary_of(_names(folder))
        if name is None:
            return None
        path = folder / name
        found = path.stat()  # through a link, as the runtime reads it
        if not stat.S_ISREG(found.st_mode):
            raise UnusablePrimary(f"{path} is not a file")
        with path.open("rb") as file:
            data = file.read(CONFIG_BYTES_MAX + 1)
        return Found(name, data, stat.S_IMODE(found.st_mode) & 0o666)
    except FileNotFoundError:
        return None  # it went while we looked
    except OSError as exc:
        raise UnusablePrimary(f"{folder}: {exc.strerror}") from exc


def _names(folder: Path) -> list[str]:
    with os.scandir(folder) as entries:
        names = [each.name for each, _ in zip(entries, range(NAMES_MAX + 1), strict=False)]
    if len(names) > NAMES_MAX:
        raise UnusablePrimary(f"{folder} has more than {NAMES_MAX} files")
    return names


def ours_in(folder: Path) -> dict[str, bytes]:
    """Our configurations by name: one, or two while the primary's name changes."""
    found = {}
    for name in OUR_NAMES:
        try:
            found[name] = (folder / name).read_bytes()
        except FileNotFoundError:
            continue
    return found


def put(folder: Path, name: str, data: bytes, mode: int) -> None:
    """Write our configuration, then remove those under another name of ours."""
    write_atomic(folder / name, data, mode)
    for other in OUR_NAMES:
        if other != name:
            (folder / other).unlink(missing_ok=True)


def remove(folder: Path) -> list[str]:
    """Remove our configurations, also those that Cilium has put aside; the names of the former."""
    gone = list(ours_in(folder))
    for name in OUR_NAMES:
        for ending in ("", ".cilium_bak"):
            (folder / f"{name}{ending}").unlink(missing_ok=True)
    return gone


def naming_us(folder: Path) -> list[str]:
    """Configurations that name our plugin, by whoever they were written."""
    try:
        names = [each for each in _names(folder) if each.endswith(ENDINGS)]
    except FileNotFoundError:
        return []
    quoted = f'"{PLUGIN}"'.encode()
    return sorted(name for name in names if quoted in (folder / name).read_bytes())


def install_program(source: Path, folder: Path) -> bool:
    """Put the program into the runtime's folder; False: it was there. OSError: it could not."""
    try:
        data = source.read_bytes()
    except OSError as exc:
        raise PluginMissing(f"{source}: {exc.strerror}") from exc
    if not data.startswith(b"\x7fELF") or len(data) > PROGRAM_BYTES_MAX:
        raise PluginMissing(f"{source} is not a program")
    target = folder / PLUGIN
    if target.is_file() and target.read_bytes() == data and os.access(target, os.X_OK):
        return False
    write_atomic(target, data, 0o755)
    return True


def remove_program(folder: Path) -> bool:
    target = folder / PLUGIN
    if not target.exists():
        return False
    target.unlink()
    return True


def digest(path: Path) -> str:
    """A short name for a file's content; empty: there is no file."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()[:12]
    except OSError:
        return ""
