"""Copies on disk of each file's last content that was understood whole, for the next start.

Without it a file that is broken at the moment of a restart would lose its policies. Nothing here is
precious: a lost or unreadable copy only means no last good content.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Collection
from pathlib import Path

from control.kit.files import write_atomic
from control.kit.log import event

log = logging.getLogger("source")

_NAME = ".name"  # beside the copy of a file behind a link: its path


class Kept:
    """One copy a file, named by the hash of its path; 0600, since manifests may hold secrets.

    Behind a link that leads nowhere nobody can list the files, so theirs have their path beside it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._broken = False  # the disk fails; logged once, until it works again
        self._linked: dict[str, bool] = {}  # by folder, as it was when a file was read there
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def get(self, file: str) -> bytes | None:
        try:
            return self._path(file).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as exc:
            self._failed(exc)
            return None

    def put(self, file: str, data: bytes) -> None:
        if self.get(file) == data:
            return
        try:
            # Not synced: ten thousand files would take a minute, and a lost copy is no loss yet.
            write_atomic(self._path(file), data, 0o600, sync=False)
            self._broken = False
        except OSError as exc:
            self._failed(exc)
        else:
            self.name(file)

    def name(self, file: str) -> None:
        """Note the path of a file that has a copy, if it is behind a link."""
        folder, note = os.path.dirname(file), self._path(file).with_suffix(_NAME)
        if folder not in self._linked:
            self._linked[folder] = os.path.realpath(folder) != os.path.abspath(folder)
        try:
            if self._linked[folder] and not note.exists():
                write_atomic(note, os.fsencode(file), 0o600, sync=False)
        except OSError as exc:
            self._failed(exc)

    def only(self, files: Collection[str]) -> None:
        """Forget every file but these."""
        wanted = {self._path(file).name for file in files}
        try:
            for path in self._folder.iterdir():
                if path.stem not in wanted:
                    path.unlink(missing_ok=True)
        except OSError as exc:
            self._failed(exc)

    def forget(self, file: str) -> None:
        try:
            self._path(file).unlink(missing_ok=True)
            self._path(file).with_suffix(_NAME).unlink(missing_ok=True)
        except OSError as exc:
            self._failed(exc)

    def behind(self, links: Collection[str]) -> list[str]:
        """Files that were read behind these links, whose folders cannot be listed now."""
        starts = tuple(f"{link}{os.sep}" for link in links)
        try:
            names = [path.read_bytes() for path in self._folder.glob(f"*{_NAME}")]
        except OSError as exc:
            self._failed(exc)
            return []
        files = (os.fsdecode(name) for name in names)
        return sorted(each for each in files if each.startswith(starts))

    def _path(self, file: str) -> Path:
        return self._folder / hashlib.sha256(file.encode(errors="surrogateescape")).hexdigest()

    def _failed(self, exc: OSError) -> None:
        if not self._broken:
            event(log, logging.ERROR, "source.not_kept", folder=self._folder, error=exc)
        self._broken = True
