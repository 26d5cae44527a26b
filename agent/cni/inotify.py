"""Calls back when anything in a folder changes, the content of its files included."""

from __future__ import annotations

import asyncio
import ctypes
import errno
import logging
import os
from collections.abc import Callable
from pathlib import Path

from control.kit.log import event

log = logging.getLogger("cni")

_libc = ctypes.CDLL(None, use_errno=True)
_READ_BYTES = 64 * 1024
# IN_MODIFY, IN_ATTRIB, IN_CLOSE_WRITE, IN_MOVED_FROM, IN_MOVED_TO, IN_CREATE, IN_DELETE,
# IN_DELETE_SELF, IN_MOVE_SELF. Content counts, not only names: some write in place.
_MASK = 0x2 | 0x4 | 0x8 | 0x40 | 0x80 | 0x100 | 0x200 | 0x400 | 0x800


class FolderWatch:
    """The host's limit of watches may be reached: then the caller has to look by itself."""

    def __init__(self) -> None:
        self._fd = -1
        self._is_failed = False

    def follow(self, folder: Path, changed: Callable[[], None]) -> bool:
        """Watch what is at this path now; call it often, for a folder may be made anew. False: it
        cannot be watched now."""
        if self._fd < 0:
            self._fd = _libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
            if self._fd < 0:
                return self._failed()
            asyncio.get_running_loop().add_reader(self._fd, self._drain, changed)
        if _libc.inotify_add_watch(self._fd, os.fsencode(folder), _MASK) < 0:
            return self._failed()
        self._is_failed = False
        return True

    def _failed(self) -> bool:
        number = ctypes.get_errno()
        if number not in (errno.ENOENT, errno.ENOTDIR) and not self._is_failed:
            event(log, logging.WARNING, "cni.not_watched", error=os.strerror(number))
            self._is_failed = True
        return False

    def _drain(self, changed: Callable[[], None]) -> None:
        try:
            os.read(self._fd, _READ_BYTES)
        except BlockingIOError:
            return
        changed()

    def close(self) -> None:
        if self._fd >= 0:
            asyncio.get_running_loop().remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1
