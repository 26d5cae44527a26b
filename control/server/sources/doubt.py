"""Nodes whose captures are not known since a start that found less than they had reported.

A full disk, or a folder that was lost, leaves a control plane without reports. Pods that run
captured all the while must not be published as plaintext: until their node reports, and for a
bounded time, its enrolled pods count as captured. Where that is wrong the pod refuses the tunnel,
and nothing is sent in the clear.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from control.kit.errors import ConfigError

WHOLE, NOT_WHOLE = b"1", b"0"
NODES_MAX = 16384


class Doubt:
    """Pure. `only`: the nodes that are known to have had an agent, None if that cannot be told."""

    def __init__(self, is_on: bool) -> None:
        self.is_on = is_on
        self.only: frozenset[str] | None = None
        self._heard: set[str] = set()

    def about(self, node: str) -> bool:
        """True while this node may have captured more than it is known for."""
        if not self.is_on or not node or node in self._heard:
            return False
        return self.only is None or node in self.only

    def hear(self, node: str) -> bool:
        """Note that the node has reported; True if it was in doubt."""
        was = self.about(node)
        if self.is_on and len(self._heard) < NODES_MAX:
            self._heard.add(node)
        return was

    def end(self) -> None:
        self.is_on = False
        self._heard.clear()


class Seal:
    """One byte in a folder: it says if the folder has all that was to be written to it.

    The file is made in advance and overwritten in place, so that a full disk cannot keep the seal
    from being broken. One that is not there, or that cannot be written, counts as broken.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._handle: int | None = None
        self._is_whole = False
        with contextlib.suppress(OSError):
            self._handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
            self._is_whole = os.pread(self._handle, len(WHOLE), 0) == WHOLE

    @property
    def is_whole(self) -> bool:
        return self._is_whole

    def put(self, is_whole: bool) -> None:
        """Blocks for a sync. Raises ConfigError if a broken seal may be taken for whole later."""
        if is_whole == self._is_whole:
            return
        try:
            self._write(WHOLE if is_whole else NOT_WHOLE)
            self._is_whole = is_whole
        except OSError as exc:
            if is_whole:
                return
            self._take_away(exc)
            self._is_whole = False

    def _write(self, data: bytes) -> None:
        if self._handle is None:
            self._handle = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        os.pwrite(self._handle, data, 0)
        os.fsync(self._handle)

    def _take_away(self, cause: OSError) -> None:
        """Take the file away: that needs no space where even an overwritten byte needs some."""
        self.close()
        try:
            self._path.unlink(missing_ok=True)
        except OSError as exc:
            raise ConfigError(f"{self._path}: {cause}; nor can it be removed: {exc}") from exc

    def close(self) -> None:
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None
