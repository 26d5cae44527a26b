"""The namespaces whose pods may be in the mesh: the control plane's word, and its copy on disk.

The copy outlives a reboot, and the CNI plugin reads it while the agent is away. A namespace that is
not in it may be anything, so its pods wait. Format: see daemonset/cni/word.h.
"""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Collection, Mapping
from pathlib import Path

from control.kit.files import write_atomic
from control.kit.log import event
from control.model.intent import NamespaceIntent

log = logging.getLogger("cni")

FILE_BYTES_MAX = 80 * 1_000_000  # a million lines, as the plugin reads
_HEAD, _END = "tulle namespaces 1", "end"
_LINE = re.compile(r"[+-][a-z0-9][-a-z0-9]{0,62}")


def render(enrols: Mapping[str, bool]) -> bytes:
    lines = [f"{'+' if enrols[name] else '-'}{name}" for name in sorted(enrols)]
    return "\n".join([_HEAD, *lines, _END, ""]).encode()


def parse(data: bytes) -> dict[str, bool]:
    """ValueError: it is not a whole file."""
    head, *lines, end, rest = data.decode("ascii").split("\n")
    if (head, end, rest) != (_HEAD, _END, "") or not all(map(_LINE.fullmatch, lines)):
        raise ValueError("not a whole list of namespaces")
    return {line[1:]: line[0] == "+" for line in lines}


class NamespaceBook:
    """All namespaces that are known, in memory and on disk."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._enrols: dict[str, bool] = {}
        self._written: bytes | None = None
        self._fresh = False  # the control plane has spoken in this run
        self._is_wanted = True

    def load(self) -> None:
        """Start with the copy, if there is a whole one."""
        try:
            if self._path.stat().st_size > FILE_BYTES_MAX:
                raise ValueError("too long")
            self._written = self._path.read_bytes()
            self._enrols = parse(self._written)
        except FileNotFoundError:
            return
        except (OSError, ValueError) as exc:
            event(log, logging.WARNING, "namespaces.unreadable", path=self._path, error=exc)
            self._written = None

    def changed(self, fresh: Mapping[str, NamespaceIntent], removed: Collection[str]) -> None:
        """Take in the control plane's word. Its first one in this run replaces the copy."""
        if not self._fresh:
            self._fresh, self._enrols = True, {}
        self._enrols.update({name: each.enrols for name, each in fresh.items()})
        for name in removed:
            self._enrols.pop(name, None)
        self.save()

    def save(self) -> None:
        """Write the copy unless it is up to date; on a full disk the next word tries again."""
        data = render(self._enrols)
        if not self._fresh or not self._is_wanted or data == self._written:
            return
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(self._path, data)
        except OSError as exc:
            event(log, logging.ERROR, "namespaces.unsaved", path=self._path, error=exc)
            self._withdraw()
            return
        self._written = data

    def _withdraw(self) -> None:
        """Take away a copy that would let a pod of the mesh start outside: without one pods wait.
        That needs no room."""
        stale = {} if self._written is None else parse(self._written)
        if any(
            not enrols and self._enrols.get(name) is not False for name, enrols in stale.items()
        ):
            with contextlib.suppress(OSError):
                self._path.unlink(missing_ok=True)
                self._written = None

    def remove(self) -> None:
        """Take the copy away, and write none until `restore`."""
        self._is_wanted, self._written = False, None
        self._path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self._path.parent.rmdir()  # others may have files in it

    def restore(self) -> None:
        self._is_wanted = True
        self.save()

    def is_outside(self, name: str) -> bool:
        """True if no pod of the namespace is in the mesh, by the last word that was heard."""
        return self._enrols.get(name) is False

    @property
    def is_written(self) -> bool:
        """The plugin has something to read."""
        return self._written is not None

    def counts(self) -> tuple[int, int]:
        """(in the mesh, outside)."""
        inside = sum(self._enrols.values())
        return inside, len(self._enrols) - inside
