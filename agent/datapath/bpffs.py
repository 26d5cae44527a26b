"""The file system that holds our pins: mounts one if need be, never unmounts any."""

import ctypes
import os
from pathlib import Path

from agent.datapath.errors import NoBpffs

_MAGIC = 0xCAFE4A11  # BPF_FS_MAGIC
_libc = ctypes.CDLL(None, use_errno=True)


class _Statfs(ctypes.Structure):
    # Only the first word is read; the rest is room for any architecture's struct statfs.
    _fields_ = (("type", ctypes.c_long), ("rest", ctypes.c_long * 31))


def is_bpffs(directory: Path) -> bool:
    buffer = _Statfs()
    if _libc.statfs(os.fsencode(directory), ctypes.byref(buffer)) != 0:
        return False
    return int(buffer.type) & 0xFFFFFFFF == _MAGIC


def ensure(mount_point: Path) -> Path:
    """Mount a bpffs on a directory that does not lie in one yet; NoBpffs if that fails."""
    if is_bpffs(mount_point):
        return mount_point
    if not mount_point.is_dir():
        raise NoBpffs(f"no directory {mount_point} to mount a bpffs on")
    if _libc.mount(b"bpf", os.fsencode(mount_point), b"bpf", 0, b"mode=0700") != 0:
        raise NoBpffs(f"mount a bpffs on {mount_point}", ctypes.get_errno())
    return mount_point
