"""Contents of files in, objects and problems out: decides which objects are in force. Pure.

The rule: an object that can be understood is in force; one that cannot keeps its last good version;
a policy that never was understood is replaced by a stand-in that denies.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

from control.server.sources.content import NOTHING, Content, read_content, unread_content
from control.server.sources.entries import FileEntry, choose, good_one, place_word
from control.server.sources.inventory import Inventory
from control.server.sources.kinds import POLICY_KINDS
from control.server.sources.objects import Key
from control.server.sources.problem import UNREADABLE, Problem
from control.server.sources.snapshot import Snapshot

_WORD = re.compile(r"[a-z0-9][-a-z0-9.]*")


class Folder:
    """All files of one source. Call `snapshot()` after a batch of `load` and `forget`; it costs
    what these have changed."""

    def __init__(self) -> None:
        self._contents: dict[str, Content] = {}
        self._file_problems: dict[str, Problem] = {}
        self._content_problems: dict[str, tuple[Problem, ...]] = {}
        self._ignored: Counter[str] = Counter()
        self._files: dict[Key, tuple[str, ...]] = {}  # by the keys that they mention
        self._guessing: set[str] = set()  # files with documents that nobody can read
        self._unread: set[str] = set()  # those that could not be read at the start
        self._guessed: dict[Key, FileEntry] = {}
        self._leaving: frozenset[str] = frozenset()
        self._touched: dict[Key, None] = {}  # in the order of files: alike is what stands together
        self._problems: dict[Key, tuple[Problem, ...]] = {}  # by key
        self._inventory = Inventory()
        self._is_told = False

    def load(self, file: str, data: bytes) -> bool:
        """A new or changed file; True when all of it was understood."""
        before = NOTHING if file in self._unread else self._contents.get(file, NOTHING)
        self._unread.discard(file)
        content = read_content(file, data, before)
        self._take(file, content)
        self._file_problems.pop(file, None)
        return content.is_good

    def may_be_cut(self, file: str, data: bytes) -> bool:
        """True if this shorter content may be a part of what is being written: objects would go, a
        policy would be another, or something cannot be understood."""
        before = self._contents.get(file, NOTHING)
        content = read_content(file, data, before)
        old, new = _by_key(before.entries), _by_key(content.entries)
        lesser = (key for key in old if old[key] != new.get(key))
        return not content.is_good or any(
            key not in new or key.kind in POLICY_KINDS for key in lesser
        )

    def unreadable(self, file: str, why: str, *, at_start: bool = False) -> None:
        """The file is there but cannot be read: its last good content stays in force. Without any
        at a start, what was in force before may have been a policy of it, and that denies."""
        if file in self._unread or (at_start and file not in self._contents):
            self._unread.add(file)
            self._take(file, unread_content(file, why))
        else:
            self._file_problems[file] = Problem(file, 1, "", UNREADABLE, why)

    def forget(self, file: str) -> None:
        self._unread.discard(file)
        self._take(file, NOTHING)
        self._file_problems.pop(file, None)

    def leave(self, files: frozenset[str]) -> None:
        """Files that were not there when one last looked: theirs is in force until they are
        forgotten, or until another file has it, and that one is no duplicate."""
        for file in files ^ self._leaving:
            for key in (entry.key for entry in self._contents.get(file, NOTHING).entries):
                if len(self._files[key]) > 1:
                    self._touched[key] = None
        self._leaving = files

    def _take(self, file: str, content: Content) -> None:
        """Replace what a file holds, and note the keys that have to be decided again."""
        before = self._contents.pop(file, NOTHING)
        old, new = _by_key(before.entries), _by_key(content.entries)
        self._touched.update((key, None) for key in new if old.get(key) != new[key])
        for key in old:
            if key not in new:
                self._touched[key] = None
                self._mention(key, tuple(each for each in self._files[key] if each != file))
        alone = (file,)
        for key in new:
            if key not in old:
                files = self._files.get(key)
                self._mention(key, alone if files is None else tuple(sorted((*files, file))))
        self._ignored.subtract(before.ignored or {})
        self._ignored.update(content.ignored or {})
        self._content_problems.pop(file, None)
        self._guessing.discard(file)
        if content is NOTHING:
            return
        self._contents[file] = content
        if content.problems:
            self._content_problems[file] = content.problems
        if any(entry.is_guess for entry in content.entries):
            self._guessing.add(file)

    def _mention(self, key: Key, files: tuple[str, ...]) -> None:
        if files:
            self._files[key] = files
        else:
            del self._files[key]

    def settle(self) -> None:
        """Decide what is in force, of all that was touched."""
        guessed = self._guesses()
        entries: dict[Key, list[tuple[str, FileEntry]]] = {}
        files = {file for key in self._touched for file in self._files.get(key, ())}
        for file in sorted(files, key=lambda file: (file in self._leaving, file)):
            for entry in self._contents[file].entries:
                if entry.key in self._touched and not entry.is_guess:
                    entries.setdefault(entry.key, []).append((file, entry))
        for key in self._touched:
            found = entries.get(key, [])
            self._decide(key, guessed.get(key) if not found else found[0][1], found[1:])
        self._guessed = guessed
        self._touched = {}

    def _decide(
        self, key: Key, entry: FileEntry | None, others: Sequence[tuple[str, FileEntry]]
    ) -> None:
        """The object in force under a key: that of an entry, or the last good one before it."""
        if entry is None:
            self._inventory.put(key, None)
            self._problems.pop(key, None)
            return
        value, problem = choose(entry, good_one(self._inventory.get(key)))
        self._inventory.put(key, value)
        problems = [] if problem is None else [problem]
        problems += (
            _duplicate(file, other, entry) for file, other in others if file not in self._leaving
        )
        if problems:
            self._problems[key] = tuple(problems)
        else:
            self._problems.pop(key, None)

    def _guesses(self) -> dict[Key, FileEntry]:
        """The documents that nobody can read, each under a key that is nobody else's."""
        found: dict[Key, FileEntry] = {}
        for file in sorted(self._guessing):
            for number, entry in enumerate(self._contents[file].entries):
                if not entry.is_guess:
                    continue
                for at, placed in enumerate(self._everywhere(entry)):
                    if _is_of(placed, found.get(placed.key)):
                        continue
                    is_free = placed.key not in found and not self._is_read(placed.key)
                    known = placed if is_free else _renamed(file, placed, number + at)
                    if entry.unplaced:
                        known = replace(known, why=placed.why)  # one problem, wherever it stands
                    found[known.key] = known
        self._touched.update(dict.fromkeys((*found, *self._guessed)))
        return found

    def _everywhere(self, entry: FileEntry) -> list[FileEntry]:
        """The entry; if its namespace cannot be told, in each that its words may mean, and in each
        that there is if they mean none."""
        if not entry.unplaced or entry.stand_in is None or entry.why is None:
            return [entry]
        there = {key.name if key.kind == "Namespace" else key.namespace for key in self._files}
        there.discard("")  # nodes have none
        words = set(_WORD.findall(entry.unplaced.lower()))
        wanted = sorted(there & words or there)
        why = replace(entry.why, message=f"{entry.why.message}; its namespace cannot be told")
        return [
            replace(
                entry,
                key=(key := entry.key._replace(namespace=each)),
                why=why,
                stand_in=replace(entry.stand_in, meta=replace(entry.stand_in.meta, key=key)),
            )
            for each in wanted
        ]

    def _is_read(self, key: Key) -> bool:
        """True if some file mentions it in a document that could be read."""
        return any(
            entry.key == key and not entry.is_guess
            for file in self._files.get(key, ())
            for entry in self._contents[file].entries
        )

    def snapshot(self, *, is_whole: bool = False) -> Snapshot:
        """News since the last call; the first time, or if asked for, all there is."""
        self.settle()
        is_whole = is_whole or not self._is_told
        self._is_told = True
        problems = [*self._file_problems.values()]
        for found in self._content_problems.values():
            problems += found
        for key, found in self._problems.items():
            if key not in self._guessed:
                problems += found
        guesses = (each for key in self._guessed for each in self._problems.get(key, ()))
        # A policy that stands in many namespaces is one problem.
        one = {(each.file, each.line, each.object, each.reason): each for each in guesses}
        problems += one.values()
        return Snapshot(
            self._inventory,
            self._inventory.whole() if is_whole else self._inventory.news(),
            tuple(sorted(problems)),
            {kind: count for kind, count in self._ignored.items() if count > 0},
            is_whole=is_whole,
        )


def _is_of(entry: FileEntry, other: FileEntry | None) -> bool:
    """True if both are guesses about one document."""
    if other is None or other.stand_in is None or entry.stand_in is None:
        return False
    ours, theirs = entry.stand_in.meta, other.stand_in.meta
    return (ours.file, ours.line) == (theirs.file, theirs.line) and bool(entry.unplaced)


def _by_key(entries: Iterable[FileEntry]) -> dict[Key, tuple[FileEntry, ...]]:
    found: dict[Key, tuple[FileEntry, ...]] = {}
    for each in entries:
        known = found.get(each.key)
        found[each.key] = (each,) if known is None else (*known, each)
    return found


def _renamed(file: str, entry: FileEntry, number: int) -> FileEntry:
    """An entry whose name, as far as it could be told, is that of another object: under a name of
    its own, or a policy that nobody can read would be passed over."""
    place = place_word(f"again {file}", number)
    key = Key(entry.key.kind, entry.key.namespace, f"unnamed-line-{entry.line}-{place}")
    stand_in, why = entry.stand_in, entry.why
    assert stand_in is not None
    assert why is not None
    return replace(
        entry,
        key=key,
        why=replace(why, object=str(key)),
        stand_in=replace(stand_in, meta=replace(stand_in.meta, key=key)),
    )


def _duplicate(file: str, entry: FileEntry, first: FileEntry) -> Problem:
    place = first.object.meta if first.object is not None else None
    where = f"{place.file}:{place.line}" if place is not None else f"line {first.line}"
    message = f"stands there twice; the one at {where} is in force"
    return Problem(file, entry.line, str(entry.key), "duplicate", message)
