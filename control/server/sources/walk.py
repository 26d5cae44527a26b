"""One walk over a folder of manifests: the files there are, and links that lead nowhere."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from pathlib import Path

from control.server.sources.problem import UNREADABLE, Problem

SUFFIXES = (".yaml", ".yml", ".json")
# 50,000 pods as kubectl prints them. A file counts as at least one block of a disk, so this is
# also a bound for the number of files: 65,536.
FOLDER_BYTES_MAX = 256 * 1024 * 1024
BLOCK_BYTES = 4096
FOLDERS_MAX = 10_000

Signature = tuple[int, int, int]  # mtime in ns, size, inode
NOWHERE: Signature = (0, 0, 0)


@dataclass(frozen=True, slots=True)
class Look:
    """Result of one walk over the folder; `error` when it could not see everything. A link that
    leads nowhere is one of the files, that cannot be read, if it has a manifest's name."""

    files: dict[str, Signature]
    error: str = ""
    problems: tuple[Problem, ...] = ()  # other links that lead nowhere, and what is no file
    lost: tuple[str, ...] = ()  # those links: what was read behind them is not gone


def see_folder(root: Path) -> Look:
    """Walk over the folder. Links are followed after what really stands in it, each folder once: a
    link to what is there anyway, or in a circle, adds nothing."""
    walk = _Walk()
    walk.folders.append(str(root))
    while walk.folders or walk.links:
        folder = walk.next()
        try:
            if not walk.enter(os.stat(folder)):
                continue
            with os.scandir(folder) as entries:
                for entry in entries:
                    if not entry.name.startswith("."):
                        walk.see(entry)
        except FileNotFoundError as exc:
            if folder == str(root):
                return Look({}, f"the folder cannot be read: {exc.strerror}")
        except OSError as exc:
            return Look({}, f"{folder} cannot be read: {exc.strerror}")
        if walk.bytes > FOLDER_BYTES_MAX:
            mib = FOLDER_BYTES_MAX >> 20
            return Look({}, f"more than {mib} MiB, counting 4 KiB for each small file")
        if len(walk.entered) > FOLDERS_MAX:
            return Look({}, f"more than {FOLDERS_MAX} folders")
    return Look(walk.files, "", tuple(walk.problems), tuple(walk.lost))


class _Walk:
    """State of one walk: what is still to be entered, and what was found."""

    def __init__(self) -> None:
        self.files: dict[str, Signature] = {}
        self.bytes = 0
        self.folders: list[str] = []
        self.links: list[str] = []  # to folders
        self.entered: set[tuple[int, int]] = set()
        self.problems: list[Problem] = []
        self.lost: list[str] = []

    def next(self) -> str:
        """A folder to enter; links last, and always in the same order."""
        if self.folders:
            return self.folders.pop()
        self.links.sort(reverse=True)
        return self.links.pop()

    def enter(self, found: os.stat_result) -> bool:
        """False when this folder was seen already, by whatever name."""
        place = (found.st_dev, found.st_ino)
        if place in self.entered:
            return False
        self.entered.add(place)
        return True

    def see(self, entry: os.DirEntry[str]) -> None:
        """Hidden names were left out: editors' scratch files, the inside of mounted volumes."""
        try:
            if entry.is_dir(follow_symlinks=False):
                self.folders.append(entry.path)
            elif entry.is_dir():
                self.links.append(entry.path)
            elif entry.is_file():
                if entry.name.endswith(SUFFIXES):
                    found = entry.stat()
                    self.bytes += max(found.st_size, BLOCK_BYTES)
                    self.files[entry.path] = (found.st_mtime_ns, found.st_size, found.st_ino)
            elif entry.is_symlink() and not os.path.exists(entry.path):
                self._see_nowhere(entry)
            elif entry.name.endswith(SUFFIXES):
                self._unread(entry.path, "a pipe, a socket or a device, not a file")
        except FileNotFoundError:
            pass  # it went away between the two calls, so it is missing in this look
        except OSError as exc:
            if exc.errno != errno.ELOOP:
                raise
            self._see_nowhere(entry)

    def _see_nowhere(self, entry: os.DirEntry[str]) -> None:
        """A link whose target is missing, on a volume that is not there perhaps."""
        if entry.name.endswith(SUFFIXES):
            self.bytes += BLOCK_BYTES
            self.files[entry.path] = NOWHERE
        else:
            self.lost.append(entry.path)
            self._unread(entry.path, "a link that leads nowhere", "what it led to stays in force")

    def _unread(self, path: str, noun: str, effect: str = "nothing is read from it") -> None:
        message = f"{noun}; {effect}"
        self.problems.append(Problem(path, 1, "", UNREADABLE, message))
