"""A watched folder of manifests: reads files that have settled, and yields changed objects.

Polling, on purpose: it sees every way a file can change (rename, edit in place, a mounted volume, a
network file system) and needs no kernel queue that may overflow. A file counts as settled when two
looks in a row saw the same, or when it has not been written for a moment. So a half-written file
changes nothing, nor does one that an editor is just replacing.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from control.kit.clock import Clock
from control.kit.log import event
from control.kit.memory import uncollected
from control.server.sources.folder import Folder
from control.server.sources.kept import Kept
from control.server.sources.problem import UNREADABLE, Problem
from control.server.sources.snapshot import Snapshot
from control.server.sources.walk import NOWHERE, Look, Signature, see_folder
from control.server.sources.yaml_text import FILE_BYTES_MAX

log = logging.getLogger("source")

POLL_S, AGAIN_S = 0.1, 0.05  # sooner while a file waits for a second look
# Looking takes a twentieth of the time and reading half of it, but whatever they took, somebody may
# change a policy meanwhile: it is in force within a second.
POLL_SHARE = 20
REST_MAX_S = 0.4
WAITING_LINE_S = 10.0
QUIET_S = 0.15  # a file not written for this long is whole
UNREAD_AGAIN_S = 1.0  # a file that could not be read is tried again, changed or not
SHRUNK_QUIET_S = 0.5  # one that lost something in place may be in the middle of being written

# To have an empty mesh on purpose, one empty file is enough (and --gone-share 1, if it was large).
NO_MANIFEST = "there is no manifest in the folder, not even an empty one"


class DirectorySource:
    def __init__(self, path: Path, clock: Clock, kept: Kept | None = None) -> None:
        """With `kept` the last good content of files outlives this process."""
        self._path = path
        self._clock = clock
        self._kept = kept
        self._folder = Folder()
        self._loaded: dict[str, Signature] = {}
        self._last: dict[str, Signature] = {}
        # Since when they look like that, and whether something may be missing.
        self._shrunk: dict[str, tuple[Signature, float, bool | None]] = {}
        self._unread: dict[str, str] = {}  # files that could not be read, and why
        self._unread_s = 0.0  # when they were tried last
        self._error = ""
        self._link_problems: tuple[Problem, ...] = ()
        # Links that led nowhere from the start on, and nothing is known of what is behind them.
        self._doubted: frozenset[str] = frozenset()
        self._told_s = -WAITING_LINE_S
        self._waits = False  # a file has to be seen once more
        self._looked_s = 0.0  # duration of the last look

    @property
    def name(self) -> str:
        return str(self._path)

    @property
    def trouble(self) -> str:
        """The reason that the folder cannot be read for; empty while it can."""
        return self._error

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[AsyncIterator[Snapshot]]:
        """As of every source: snapshots while the context is open."""
        yield self.watch()

    async def watch(self) -> AsyncIterator[Snapshot]:
        """Yield the content once the folder can be read, then again after every change. Never ends
        by itself."""
        first = await asyncio.to_thread(self._read_first)
        while self._error:
            # An empty mesh in its place would end every connection.
            self._tell_waiting()
            await asyncio.sleep(POLL_S)
            first = await asyncio.to_thread(self.read)
        yield first
        while True:
            started_s = self._clock.monotonic_s()
            changed = await asyncio.to_thread(self.poll)
            took_s = self._clock.monotonic_s() - started_s
            if changed is not None:
                yield changed
            least_s = AGAIN_S if self._waits else POLL_S
            rest_s = max(least_s, self._looked_s * POLL_SHARE, took_s)
            await asyncio.sleep(min(rest_s, REST_MAX_S))

    def _read_first(self) -> Snapshot:
        with uncollected():
            return self.read()

    def read(self) -> Snapshot:
        """The content as it is now, settled or not."""
        look = see_folder(self._path)
        self._error, self._link_problems = look.error, look.problems
        for file in self._recall(look):
            self._load(file, look.files[file], at_start=True)
        known = [link for link in look.lost if any(_is_behind(each, link) for each in self._loaded)]
        self._doubt(link for link in look.lost if link not in known)
        self._last = look.files
        return self._snapshot(is_whole=True)

    def poll(self) -> Snapshot | None:
        """One look; None when nothing settled is new."""
        started_s = self._clock.monotonic_s()
        look = see_folder(self._path)
        self._looked_s = self._clock.monotonic_s() - started_s
        changed = (look.error, look.problems) != (self._error, self._link_problems)
        self._error, self._link_problems = look.error, look.problems
        if not look.error:
            changed |= self._miss(look)
        self._waits = False
        changed |= self._read_again(look)
        for file, signature in look.files.items():
            if self._loaded.get(file) == signature:
                continue
            if self._is_settled(file, signature):
                self._load(file, signature)
                changed = True
            else:
                self._waits = True
        if not look.error:
            changed |= self._trust_again(look)
            self._last = look.files
        return self._snapshot() if changed else None

    def _doubt(self, found: Iterable[str]) -> None:
        """Deny for links that lead nowhere at a start, when nothing that an earlier process read
        behind them is known: a host may not have mounted its volumes yet."""
        links = list(found)
        for link in links:
            self._folder.unreadable(link, "a link that leads nowhere", at_start=True)
        self._doubted |= frozenset(links)

    def _trust_again(self, look: Look) -> bool:
        """End the doubt about links that are gone, or once all that they lead to is read."""
        ended = [
            link
            for link in self._doubted.difference(look.lost)
            if all(file in self._loaded for file in look.files if _is_behind(file, link))
        ]
        for link in ended:
            self._doubt([each for each in look.lost if _is_behind(each, link)])
            self._folder.forget(link)
        self._doubted = self._doubted.difference(ended)
        return bool(ended)

    def _miss(self, look: Look) -> bool:
        """Forget the files that are missing twice in a row: an editor that renames leaves a moment
        without the file. Nobody has removed those behind a link that leads nowhere."""
        missing = frozenset(each for each in self._loaded if each not in look.files)
        behind = tuple(f"{link}{os.sep}" for link in look.lost)
        gone = [each for each in missing if each not in self._last and not each.startswith(behind)]
        for file in gone:
            del self._loaded[file]
            self._shrunk.pop(file, None)
            self._unread.pop(file, None)
            self._folder.forget(file)
            if self._kept is not None:
                self._kept.forget(file)
        self._folder.leave(missing.difference(gone))
        return bool(gone)

    def _tell_waiting(self) -> None:
        now_s = self._clock.monotonic_s()
        if now_s - self._told_s >= WAITING_LINE_S:
            self._told_s = now_s
            event(log, logging.ERROR, "source.waiting", source=self._path, error=self._error)

    def _is_settled(self, file: str, signature: Signature) -> bool:
        age_s = self._clock.now().timestamp() - signature[0] / 1e9
        loaded = self._loaded.get(file)
        if loaded is not None and loaded[2] == signature[2] and loaded[1] > signature[1]:
            return self._is_meant(file, signature, age_s)
        return self._last.get(file) == signature or age_s > QUIET_S

    def _is_meant(self, file: str, signature: Signature, age_s: float) -> bool:
        """True if a file that shrank in place lost nothing, or once it has been quiet for long, by
        either clock. A second file in the place of a second one has the first one's inode, too."""
        now_s = self._clock.monotonic_s()
        seen, since_s, is_cut = self._shrunk.get(file, (None, now_s, None))
        if seen != signature:
            since_s, is_cut = now_s, None
        elif is_cut is None:
            is_cut = self._may_be_cut(file)
        self._shrunk[file] = (signature, since_s, is_cut)
        is_quiet = age_s > SHRUNK_QUIET_S or now_s - since_s > SHRUNK_QUIET_S
        return is_quiet or is_cut is False

    def _may_be_cut(self, file: str) -> bool:
        try:
            return self._folder.may_be_cut(file, _read(file))
        except OSError:
            return True

    def _read_again(self, look: Look) -> bool:
        """Try the files that could not be read: a disk, a server or a lack of descriptors that
        recovers leaves no trace in a file. True if one of them is another now."""
        now_s = self._clock.monotonic_s()
        if not self._unread or now_s - self._unread_s < UNREAD_AGAIN_S:
            return False
        self._unread_s = now_s
        before = dict(self._unread)
        for file in before:
            if (signature := look.files.get(file)) is not None:
                self._load(file, signature)
        return self._unread != before

    def _load(self, file: str, signature: Signature, *, at_start: bool = False) -> None:
        self._loaded[file] = signature
        self._shrunk.pop(file, None)
        try:
            data = _read(file)
        except OSError as exc:
            self._unread[file] = f"cannot be read: {exc.strerror}"
            self._folder.unreadable(file, self._unread[file], at_start=at_start)
            return
        self._unread.pop(file, None)
        if self._folder.load(file, data) and self._kept is not None:
            self._kept.put(file, data)
        event(log, logging.DEBUG, "source.read", file=file, bytes=len(data))

    def _recall(self, look: Look) -> list[str]:
        """Load the content that an earlier process understood, as the last good one of each file;
        the files that have another by now, or had none."""
        if self._kept is None or look.error:
            return list(look.files)
        others, lost = [], self._kept.behind(look.lost) if look.lost else []
        self._kept.only({*look.files, *lost})
        for file in lost:
            data = self._kept.get(file)
            if data is not None and self._folder.load(file, data):
                self._loaded[file] = NOWHERE
        for file, signature in look.files.items():
            data = self._kept.get(file)
            is_good = data is not None and self._folder.load(file, data)
            if is_good and _has(file, data):
                self._loaded[file] = signature
                self._kept.name(file)
            else:
                others.append(file)
        self._folder.settle()  # every object counts as the last good one
        return others

    def _snapshot(self, *, is_whole: bool = False) -> Snapshot:
        snapshot = self._folder.snapshot(is_whole=is_whole)
        problems = tuple(each for each in self._link_problems if each.file not in self._doubted)
        if self._error:
            message = f"{self._error}; the last good state stays in force"
            problems = (Problem(str(self._path), 1, "", UNREADABLE, message), *problems)
        doubt = "" if self._loaded else NO_MANIFEST
        return replace(snapshot, problems=(*problems, *snapshot.problems), doubt=doubt)


def _is_behind(file: str, link: str) -> bool:
    return file.startswith(f"{link}{os.sep}")


def is_folder(path: Path) -> bool:
    """False too for one that cannot be asked: EIO, a stale handle."""
    return os.path.isdir(path)


def _read(file: str) -> bytes:
    """Content of a file, cut a byte over its bound. Raises OSError, also for one that would make us
    wait: /proc has some, and what was a file a moment ago may be a pipe."""
    with open(os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as handle:
        data: bytes | None = handle.read(FILE_BYTES_MAX + 1)
    if data is None:
        raise BlockingIOError(errno.EAGAIN, "there is nothing to read yet")
    return data


def _has(file: str, data: bytes | None) -> bool:
    try:
        return _read(file) == data
    except OSError:
        return False
