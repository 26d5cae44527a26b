"""Unix sockets at a path: only root and our own user can connect; stale files are replaced."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path


def bind(path: Path, kind: int = socket.SOCK_STREAM) -> socket.socket:
    """A socket bound to `path`, its folder made, its mode 0600 from the first moment on.

    FileExistsError: there is something at `path` that is not a socket.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_stale(path)
    sock = socket.socket(socket.AF_UNIX, kind)
    before = os.umask(0o177)
    try:
        sock.bind(str(path))
    except OSError:
        sock.close()
        raise
    finally:
        os.umask(before)
    return sock


def _remove_stale(path: Path) -> None:
    try:
        found = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise FileExistsError(f"{path} exists and is not a socket")
    path.unlink()
