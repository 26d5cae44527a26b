"""File contents in, objects and problems out: decides which objects are in force. Pure.

The rule: an object that can be understood is in force; one that cannot keeps its last good version;
a policy that never was understood is replaced by a stand-in that denies.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from control.server.sources import core, security
from control.server.sources.entries import (
    FileEntry,
    choose,
    place_word,
    read_entry,
    with_effect,
)
from control.server.sources.kinds import POLICY_KINDS, SECURITY_GROUP
from control.server.sources.objects import AnyObject, Key, Objects, collect
from control.server.sources.problem import UNREADABLE, Invalid, Problem
from control.server.sources.reader import Reader
from control.server.sources.yaml_text import Broken, Fields, Items, Value, read_apart

NAMES_READ_MAX = 256  # in one broken document; real objects name a handful


@dataclass(frozen=True, slots=True)
class Content:
    """One file that parses as YAML."""

    entries: tuple[FileEntry, ...] = ()
    problems: tuple[Problem, ...] = ()  # in documents that are not even objects
    ignored: Mapping[str, int] | None = None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """`doubt`: why this may be an accident and not what somebody wants, in words."""

    objects: Objects
    problems: tuple[Problem, ...]
    ignored: Mapping[str, int]
    doubt: str = ""


class Folder:
    """All files of one source. Call `snapshot()` after a batch of `load` and `forget`."""

    def __init__(self) -> None:
        self._contents: dict[str, Content] = {}
        self._file_problems: dict[str, Problem] = {}
        self._last_good: dict[Key, AnyObject] = {}

    def load(self, file: str, data: bytes) -> bool:
        """A new or changed file; True when all of it was understood."""
        content = self._contents[file] = read_content(file, data, self._contents.get(file))
        self._file_problems.pop(file, None)
        return not content.problems and all(entry.why is None for entry in content.entries)

    def unreadable(self, file: str, why: str) -> None:
        """The file is there but cannot be read: as if it were not YAML."""
        self._file_problems[file] = Problem(file, 1, "", UNREADABLE, why)

    def forget(self, file: str) -> None:
        self._contents.pop(file, None)
        self._file_problems.pop(file, None)

    def snapshot(self) -> Snapshot:
        problems = list(self._file_problems.values())
        ignored: Counter[str] = Counter()
        chosen: dict[Key, FileEntry] = {}
        guessed: list[tuple[str, FileEntry]] = []
        for file in sorted(self._contents):
            content = self._contents[file]
            problems += content.problems
            ignored.update(content.ignored or {})
            for entry in content.entries:
                if entry.is_guess:
                    guessed.append((file, entry))
                    continue
                first = chosen.setdefault(entry.key, entry)
                if first is not entry:
                    problems.append(_duplicate(file, entry, first))
        for number, (file, entry) in enumerate(guessed):
            known = entry if entry.key not in chosen else _renamed(file, entry, number)
            chosen[known.key] = known
        in_force: dict[Key, AnyObject] = {}
        for key, entry in chosen.items():
            value, problem = choose(entry, self._last_good.get(entry.key))
            if value is not None:
                in_force[key] = value
            if problem is not None:
                problems.append(problem)
        self._remember(chosen)
        return Snapshot(collect(in_force), tuple(sorted(problems)), dict(ignored))

    def _remember(self, chosen: Mapping[Key, FileEntry]) -> None:
        """Keep the last good version of exactly what is still mentioned somewhere."""
        self._last_good = {
            key: good
            for key, entry in chosen.items()
            if (good := entry.object or self._last_good.get(key)) is not None
        }


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
