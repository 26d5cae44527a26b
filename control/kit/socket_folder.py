"""Folders for a control plane's own sockets: private, in memory, and gone with their process.

A folder is locked while its process lives. One that was killed leaves its folder to the next one,
or to whoever takes its mesh down.
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
_PREFIX: Final = "tulle-control-"


def private_folder() -> tuple[tempfile.TemporaryDirectory[str], int]:
    """A folder, and its descriptor that holds its lock."""
    error: OSError | None = None
    for each in _PARENTS:
        _remove_abandoned(Path(each))
        try:
            while True:
                made = tempfile.TemporaryDirectory(prefix=_PREFIX, dir=each)
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
        _remove_abandoned(Path(each))


def _remove_abandoned(parent: Path) -> None:
    """Remove our folders that no process has locked."""
    for path in parent.glob(f"{_PREFIX}*"):
        try:
            if path.lstat().st_uid != os.getuid():
                continue
            handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except OSError:
            continue
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            (path / "grpc").unlink(missing_ok=True)
            path.rmdir()
        except OSError:
            continue  # somebody lives in it, or it holds what we never put there
        finally:
            os.close(handle)
