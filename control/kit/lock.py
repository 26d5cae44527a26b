"""One process for a folder: a lock that the kernel drops with the process, however it ends."""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import ClassVar

from control.kit.errors import ConfigError
from control.kit.log import event

log = logging.getLogger("agent")
TURN_S = 0.1

_PID_BYTES = 32


class AlreadyServed(ConfigError):
    """Another process has the folder; it goes on undisturbed."""

    reason: ClassVar[str] = "already_served"


@contextmanager
def held(path: Path, what: str) -> Iterator[None]:
    """Hold the lock file at `path`; AlreadyServed, with the holder's pid, if somebody has it.

    The file stays: removing it would let two processes hold locks of one name. Without the lock
    nothing of the folder may be touched.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AlreadyServed(f"{what}, {_holder(handle)}, serves {path.parent}") from None
        with suppress(OSError):  # a full disk; the pid is for people
            os.ftruncate(handle, 0)
            os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(handle)


@contextmanager
def held_folder(path: Path, what: str) -> Iterator[None]:
    """Hold a folder, where no file can be made (bpffs); AlreadyServed if somebody has it.

    The folder is made if need be and stays.
    """
    path.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AlreadyServed(f"{what} has {path.parent}") from None
        yield
    finally:
        os.close(handle)


def is_held(path: Path) -> bool:
    """True while somebody holds the lock file, or the folder, at `path`."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


@asynccontextmanager
async def held_in_turn(path: Path, what: str) -> AsyncIterator[None]:
    """As `held`, but wait for a holder to end: for a successor that is started before it does."""
    with ExitStack() as stack:
        told = False
        while True:
            try:
                stack.enter_context(held(path, what))
                break
            except AlreadyServed as exc:
                if not told:
                    event(log, logging.WARNING, "lock.awaited", error=exc)
                told = True
                await asyncio.sleep(TURN_S)
        yield


def _holder(handle: int) -> str:
    pid = os.pread(handle, _PID_BYTES, 0).strip()
    return f"pid {pid.decode()}" if pid.isdigit() else "pid unknown"
