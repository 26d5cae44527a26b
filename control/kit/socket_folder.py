"""Folders for a process's own sockets: private, in memory, and gone with it.

A folder is locked while its process lives. One that was killed leaves its folder to the next one of
its kind, or to whoever takes its mesh down.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
from pathlib import Path
from typing import Final

from control.kit.errors import ConfigError

# Those in memory come first: a full disk must not keep a control plane from starting.
_PARENTS: Final = ("/run", "/dev/shm", tempfile.gettempdir())
# Kinds of processes, and the sockets that each may leave.
_SOCKETS: Final = {"control": ("grpc",), "waypoint": ("admin", "ads", "sds")}


def private_folder(kind: str = "control") -> tuple[tempfile.TemporaryDirectory[str], int]:
    """A folder, and its descriptor that holds its lock."""
    error: OSError | None = None
    for each in _PARENTS:
        _remove_abandoned(Path(each), kind)
        try:
            while True:
                made = tempfile.TemporaryDirectory(prefix=f"tulle-{kind}-", dir=each)
                handle = os.open(made.name, os.O_RDONLY | os.O_DIRECTORY)
                fcntl.flock(handle, fcntl.LOCK_EX)
                if os.fstat(handle).st_nlink:
                    return made, handle
                os.close(handle)  # another start took it for abandoned, before the lock
                made.cleanup()
        except OSError as exc:
            error = exc
    raise ConfigError(f"no folder for a socket: {error}")


def remove_abandoned() -> None:
    """Remove all that killed processes of ours have left."""
    for each in _PARENTS:
        for kind in _SOCKETS:
            _remove_abandoned(Path(each), kind)


def _remove_abandoned(parent: Path, kind: str) -> None:
    """Remove our folders that no process has locked."""
    for path in parent.glob(f"tulle-{kind}-*"):
        try:
            if path.lstat().st_uid != os.getuid():
                continue
            handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except OSError:
            continue
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for name in _SOCKETS[kind]:
                (path / name).unlink(missing_ok=True)
            path.rmdir()
        except OSError:
            continue  # somebody lives in it, or it holds what we never put there
        finally:
            os.close(handle)
