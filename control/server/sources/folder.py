"""File contents in, objects and problems out: decides which objects are in force. Pure.

The rule: an object that can be understood is in force; one that cannot keeps its last good version;
a policy that never was understood is replaced by a stand-in that denies.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from control.server.sources import core, security
from control.server.sources.entries import (
    FileEntry,
    choose,
    good_one,
    place_word,
    read_entry,
    with_effect,
)
from control.server.sources.inventory import Inventory
from control.server.sources.kinds import POLICY_KINDS, SECURITY_GROUP
from control.server.sources.objects import Key
from control.server.sources.problem import UNREADABLE, Invalid, Problem
from control.server.sources.reader import Reader
from control.server.sources.snapshot import Snapshot
from control.server.sources.yaml_text import Broken, Fields, Items, Value, read_apart

NAMES_READ_MAX = 256  # in one broken document; real objects name a handful


@dataclass(frozen=True, slots=True)
class Content:
    """One file that parses as YAML."""

    entries: tuple[FileEntry, ...] = ()
    problems: tuple[Problem, ...] = ()  # in documents that are not even objects
    ignored: Mapping[str, int] | None = None


NOTHING = Content()


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
        self._guessed: dict[Key, FileEntry] = {}
        self._touched: set[Key] = set()
        self._problems: dict[Key, tuple[Problem, ...]] = {}  # by key
        self._inventory = Inventory()
        self._is_told = False

    def load(self, file: str, data: bytes) -> bool:
        """A new or changed file; True when all of it was understood."""
        content = read_content(file, data, self._contents.get(file))
        self._take(file, content)
        self._file_problems.pop(file, None)
        return not content.problems and all(entry.why is None for entry in content.entries)

    def unreadable(self, file: str, why: str) -> None:
        """The file is there but cannot be read: as if it were not YAML."""
        self._file_problems[file] = Problem(file, 1, "", UNREADABLE, why)

    def forget(self, file: str) -> None:
        self._take(file, NOTHING)
        self._file_problems.pop(file, None)

    def _take(self, file: str, content: Content) -> None:
        """Replace what a file holds, and note the keys that have to be decided again."""
        before = self._contents.pop(file, NOTHING)
        old, new = _by_key(before.entries), _by_key(content.entries)
        self._touched.update(key for key in old.keys() | new.keys() if old.get(key) != new.get(key))
        for key in old.keys() - new.keys():
            self._mention(key, tuple(each for each in self._files[key] if each != file))
        alone = (file,)
        for key in new.keys() - old.keys():
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
        for file in sorted({file for key in self._touched for file in self._files.get(key, ())}):
            for entry in self._contents[file].entries:
                if entry.key in self._touched and not entry.is_guess:
                    entries.setdefault(entry.key, []).append((file, entry))
        for key in self._touched:
            found = entries.get(key, [])
            self._decide(key, guessed.get(key) if not found else found[0][1], found[1:])
        self._guessed = guessed
        self._touched = set()

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
        problems += (_duplicate(file, other, entry) for file, other in others)
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
                is_free = entry.key not in found and not self._is_read(entry.key)
                known = entry if is_free else _renamed(file, entry, number)
                found[known.key] = known
        self._touched |= found.keys() | self._guessed.keys()
        return found

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
        for each in (*self._content_problems.values(), *self._problems.values()):
            problems += each
        return Snapshot(
            self._inventory,
            self._inventory.whole() if is_whole else self._inventory.news(),
            tuple(sorted(problems)),
            {kind: count for kind, count in self._ignored.items() if count > 0},
            is_whole=is_whole,
        )


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


def read_content(file: str, data: bytes, before: Content | None = None) -> Content:
    """Objects and problems of a file; `before` is what it held when it was last read."""
    entries: list[FileEntry] = []
    problems: list[Problem] = []
    ignored: Counter[str] = Counter()
    broken: list[Broken] = []
    for position, (value, line) in enumerate(_flatten(data)):
        if isinstance(value, Broken):
            broken.append(value)
            continue
        if not isinstance(value, Fields):
            message = "a document that is not a Kubernetes object; ignored"
            problems.append(Problem(file, line, "", "not_an_object", message))
            continue
        document = Reader(value)
        try:
            entry = read_entry(file, document, position)
        except Invalid as exc:
            problems.append(
                Problem(file, exc.line, _label(document), exc.reason, f"{exc}; ignored")
            )
            continue
        if entry is None:
            ignored[document.text("kind")] += 1
        else:
            entries.append(entry)
    if broken:
        shown = {entry.key for entry in entries}
        kept = [each for each in (before.entries if before else ()) if each.key not in shown]
        entries += kept
        # One that names no namespace may be for any that its file is about.
        namespaces = sorted({entry.key.namespace for entry in entries} - {""})
        for each in broken:
            _read_broken(file, each, kept, entries, problems, namespaces)
    return Content(tuple(entries), tuple(problems), dict(ignored))


def _read_broken(
    file: str,
    broken: Broken,
    kept: list[FileEntry],
    entries: list[FileEntry],
    problems: list[Problem],
    namespaces: list[str],
) -> None:
    """A document that is not YAML. What the file held before and shows no more may be in it, and
    stays in force; a policy that nobody has ever read denies."""
    problem = Problem(file, broken.line, "", broken.why.reason, str(broken.why))
    new = [
        each for each in guess(broken, namespaces) if not any(each.may_be(old.key) for old in kept)
    ]
    for each in new:
        key = each.key(file, broken.line)
        stand_in = security.stand_in(Reader(Fields(broken.line)), key, file, str(broken.why))
        why = replace(problem, object=str(key))
        entries.append(FileEntry(key, broken.line, None, why, stand_in, is_guess=True))
    if not new:
        holds = any((each.object or each.stand_in) is not None for each in kept)
        effect = "its last good content stays in force" if holds else "ignored"
        problems.append(with_effect(problem, effect))


def _flatten(data: bytes) -> Iterator[tuple[Value | Broken, int]]:
    """Documents, and the items of those that are lists of objects."""
    for document in read_apart(data):
        if isinstance(document, Broken):
            yield document, document.line
            continue
        value = document.value
        if value is None:
            continue
        items = value.get("items") if isinstance(value, Fields) else None
        if isinstance(value, Fields) and isinstance(items, Items):
            kind = value.get("kind")
            if isinstance(kind, str) and kind.endswith("List"):
                yield from zip(items, items.lines, strict=True)
                continue
        yield value, value.line if isinstance(value, Fields | Items) else document.line


@dataclass(frozen=True, slots=True)
class Guess:
    """A policy that a broken document may hold; None is what cannot be told."""

    kind: str
    namespace: str | None
    name: str | None

    def may_be(self, known: Key) -> bool:
        """True if this may be an object that was read before."""
        return (
            self.kind == known.kind
            and self.namespace in (None, known.namespace)
            and self.name in (None, known.name)
        )

    def key(self, file: str, line: int) -> Key:
        namespace = self.namespace or core.DEFAULT_NAMESPACE
        name = self.name or f"unreadable-line-{line}-{place_word(file, line)}"
        return Key(self.kind, namespace, name)


def guess(broken: Broken, beside: Sequence[str] = ()) -> list[Guess]:
    """Policies that a document which is not YAML may hold; none when no word of it says policy.
    `beside`: namespaces of the objects in the same file."""
    kinds = sorted(kind for kind in POLICY_KINDS if kind in broken.text)
    if not kinds and SECURITY_GROUP in broken.text:
        kinds = sorted(POLICY_KINDS)
    namespaces: list[str | None] = [*sorted(_named("namespace", broken.text))]
    names = sorted(_named("name", broken.text))
    # Two names may be those of two objects, or of one and of something in it: then none is sure.
    name = names[0] if len(names) == 1 else None
    if not namespaces:
        namespaces = [None, *(each for each in beside if each != core.DEFAULT_NAMESPACE)]
    return [Guess(kind, namespace, name) for kind in kinds for namespace in namespaces]


def _named(field: str, text: str) -> set[str]:
    """Values that stand behind `field:` and are Kubernetes names."""
    found = re.findall(rf"""\b{field}["']?\s*:\s*["']?([^\s"',}}\]]+)""", text)
    return {each for each in found[:NAMES_READ_MAX] if core.is_name(each)}


def _label(document: Reader) -> str:
    """A name for people, of a document that may be anything."""
    meta = document.fields.get("metadata")
    name = meta.get("name") if isinstance(meta, Fields) else None
    kind = document.fields.get("kind")
    return " ".join(each for each in (kind, name) if isinstance(each, str))
