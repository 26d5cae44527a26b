"""A copy of the cluster's CA on disk, for a start while the API server is away.

It holds a private key, as the state folder does without a cluster: for its owner alone. In a pod
that folder is in memory.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from control.kit.files import write_atomic
from control.kit.log import event
from control.server.ca.rotation import Rotation

log = logging.getLogger("ca")

COPY_NAME: Final = "cluster-ca.json"  # in the state folder's ca/
COPY_BYTES_MAX: Final = 2 * 1024 * 1024  # a Secret has one megabyte at most


class CopiedAuthority(msgspec.Struct, frozen=True):
    """Data of the Secret that is wanted, by its name, and the record of a change of roots."""

    name: str
    data: dict[str, str]
    record: Rotation | None


class _CopyFile(msgspec.Struct):
    origin: str
    authority: CopiedAuthority


@dataclass(slots=True)
class AuthorityCopy:
    """`origin` is the cluster; the CA of another one is not taken."""

    path: Path
    origin: str
    _last: CopiedAuthority | None = None

    def save(self, authority: CopiedAuthority) -> None:
        """Written when it differs; a full disk is told, and no reason to stop."""
        if authority == self._last:
            return
        try:
            self.path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            write_atomic(self.path, msgspec.json.encode(_CopyFile(self.origin, authority)), 0o600)
        except OSError as exc:
            event(log, logging.ERROR, "ca.not_copied", file=self.path, error=exc)
        self._last = authority

    def load(self) -> CopiedAuthority | None:
        try:
            with open(self.path, "rb") as file:
                data = file.read(COPY_BYTES_MAX)
            found = msgspec.json.decode(data, type=_CopyFile)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
            event(log, logging.ERROR, "ca.copy_unusable", file=self.path, error=exc)
            return None
        if found.origin != self.origin:
            why = f"the CA of another cluster: {found.origin}"
            event(log, logging.ERROR, "ca.copy_unusable", file=self.path, error=why)
            return None
        return found.authority
