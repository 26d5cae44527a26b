"""Atomic writes: a file is written beside its place, synced, and renamed."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path


def write_atomic(path: Path, data: bytes, mode: int = 0o644, *, sync: bool = True) -> None:
    """Replace `path` by `data`; a crash leaves the old file or the new one, never a part.

    The mode is set before the first byte, so a secret is never readable in between. Without `sync`
    a power failure may lose the content: only for data that can be made again.
    """
    _write(path, data, sync, lambda handle: os.fchmod(handle, mode))


def write_as_asked(path: Path, data: bytes, mode: int = 0o644) -> None:
    """`write_atomic` to a path that a user named: a link is followed, and a device or a pipe is
    written to. Replacing it would turn /dev/null into a file."""
    path = path.resolve()
    if path.exists() and not path.is_file():
        path.write_bytes(data)
    else:
        write_atomic(path, data, mode)


def replace_text(path: Path, data: bytes) -> None:
    """As `write_atomic`, for a file that is there: its owner, mode and attributes stay."""
    before = path.stat()

    def keep(handle: int) -> None:
        shutil.copystat(path, f"/proc/self/fd/{handle}")
        if (before.st_uid, before.st_gid) != (os.geteuid(), os.getegid()):
            os.fchown(handle, before.st_uid, before.st_gid)
            os.fchmod(handle, stat.S_IMODE(before.st_mode))  # a new owner clears setuid bits
        os.utime(handle)  # but it is new now

    _write(path, data, True, keep)


def _write(path: Path, data: bytes, sync: bool, prepare: Callable[[int], None]) -> None:
    handle, scratch = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        prepare(handle)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            if sync:
                os.fsync(file.fileno())
        os.replace(scratch, path)
    except BaseException:
        Path(scratch).unlink(missing_ok=True)
        raise
    if not sync:
        return
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
