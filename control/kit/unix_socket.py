"""Unix sockets at a path: for root and our own user only; never in place of one that is served.

A socket is bound beside its path and renamed: who finds it can connect, and a process that fails on
its way up has taken nobody's place. Python closes such a server without removing the path, which by
then may be a successor's.
"""

from __future__ import annotations

import errno
import itertools
import os
import socket
import stat
from pathlib import Path

_numbers = itertools.count(1)
_PATH_BYTES_MAX = 107  # in a socket's address


class Unseen:
    """A bound socket that nobody can find before `show`."""

    def __init__(self, path: Path, kind: int = socket.SOCK_STREAM, *, takes_over: bool = False):
        """Bind beside `path`, mode 0600 from the first moment on; makes its folder, 0700.

        FileExistsError: there is something at `path` that is not a socket. OSError: the path is too
        long, or a process serves it; `takes_over` is for one that may replace that process.
        """
        self._path = path
        self._scratch = path.with_name(f".{path.name}.{os.getpid()}-{next(_numbers)}")
        if len(os.fsencode(path)) > _PATH_BYTES_MAX:
            raise OSError(errno.ENAMETOOLONG, f"path too long for a socket: {path}")
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if path.is_symlink() or (path.exists() and not stat.S_ISSOCK(path.lstat().st_mode)):
            raise FileExistsError(f"{path} exists and is not a socket")
        if not takes_over and is_served(path):
            raise OSError(errno.EADDRINUSE, f"{path} is served by another process")
        for scratch in path.parent.glob(f".{path.name}.*"):
            if not is_served(scratch):
                scratch.unlink(missing_ok=True)  # from a process that died on its way up
        self.sock = _bound(self._scratch, kind)

    def show(self) -> None:
        """From now on it is found at its path, and a socket that was there is not."""
        os.rename(self._scratch, self._path)

    def close(self) -> None:
        self.sock.close()
        self._scratch.unlink(missing_ok=True)


def bind(path: Path, kind: int = socket.SOCK_STREAM) -> socket.socket:
    """A socket bound to `path`, found there at once. Raises as `Unseen` does."""
    made = Unseen(path, kind)
    made.show()
    return made.sock


def _bound(path: Path, kind: int) -> socket.socket:
    """By the folder's descriptor: this name is longer than the one to come."""
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    sock = socket.socket(socket.AF_UNIX, kind)
    before = os.umask(0o177)
    try:
        sock.bind(f"/proc/self/fd/{folder}/{path.name}")
    except OSError:
        sock.close()
        raise
    finally:
        os.umask(before)
        os.close(folder)
    return sock


def is_served(path: Path) -> bool:
    """True while a process has the socket at this path open.

    Asked with a socket of a kind that none of ours is, so that a server does not notice.
    """
    try:
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        return False
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
            probe.connect(f"/proc/self/fd/{folder}/{path.name}")
    except (FileNotFoundError, ConnectionRefusedError):
        return False
    except OSError as exc:
        return exc.errno == errno.EPROTOTYPE
    finally:
        os.close(folder)
    return True
