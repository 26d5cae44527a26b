"""Named network namespaces: created, entered and removed by threads of this process.

No child is forked for it: a fork of a program with threads and signal handlers would run those
twice.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pyroute2 import IPRoute

from control.kit.errors import KernelError

NETNS_FOLDER = Path("/run/netns")
_OWN = "/proc/thread-self/ns/net"
_CLONE_NEWNET = 0x40000000
_MS_BIND, _MS_REC, _MS_SHARED, _MNT_DETACH = 0x1000, 0x4000, 1 << 20, 2
_libc = ctypes.CDLL(None, use_errno=True)


@contextmanager
def inside(name: str) -> Iterator[None]:
    """Put this thread into namespace `name` for as long as the context lasts."""
    here = os.open(_OWN, os.O_RDONLY)
    try:
        there = os.open(NETNS_FOLDER / name, os.O_RDONLY)
        try:
            _checked("setns", _libc.setns(there, _CLONE_NEWNET))
        finally:
            os.close(there)
        try:
            yield
        finally:
            _checked("setns", _libc.setns(here, _CLONE_NEWNET))
    finally:
        os.close(here)


@contextmanager
def netlink(name: str) -> Iterator[IPRoute]:
    """A netlink socket of a namespace, usable from anywhere."""
    with inside(name):
        handle = IPRoute()
    try:
        yield handle
    finally:
        handle.close()


def create(name: str) -> None:
    """Create a namespace and keep it with a file below /run/netns, as `ip netns` does."""
    path = NETNS_FOLDER / name
    _share_folder()
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_CREAT | os.O_EXCL, 0))
    except FileExistsError:
        raise KernelError(f"network namespace {name} exists already") from None
    problems: list[OSError] = []

    def make() -> None:
        try:
            _checked("unshare", _libc.unshare(_CLONE_NEWNET))
            _mount(_OWN, path, _MS_BIND)
        except OSError as exc:
            problems.append(exc)

    # The namespace belongs to the thread and would end with it; the file keeps it.
    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    if problems:
        path.unlink()
        raise KernelError(f"network namespace {name}: {problems[0]}")


def remove(name: str) -> None:
    """Remove the name; the namespace disappears with its last process. Safe to repeat."""
    path = NETNS_FOLDER / name
    if path.exists():
        _libc.umount2(os.fsencode(path), _MNT_DETACH)  # fails if it was never mounted
        path.unlink()


def inode(name: str) -> int | None:
    """Inode of a namespace, as /proc/PID/ns/net of its processes has it; None: it is not there."""
    try:
        return (NETNS_FOLDER / name).stat().st_ino
    except FileNotFoundError:
        return None


def _share_folder() -> None:
    """Share the folder's mounts: they must reach, and leave, the mount namespaces of pods."""
    NETNS_FOLDER.mkdir(parents=True, exist_ok=True)
    try:
        _mount("", NETNS_FOLDER, _MS_SHARED | _MS_REC)
    except OSError:
        _mount(str(NETNS_FOLDER), NETNS_FOLDER, _MS_BIND | _MS_REC)
        _mount("", NETNS_FOLDER, _MS_SHARED | _MS_REC)


def _mount(source: str, target: Path, flags: int) -> None:
    result = _libc.mount(source.encode(), os.fsencode(target), b"none", flags, None)
    _checked(f"mount {target}", result)


def _checked(what: str, result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
