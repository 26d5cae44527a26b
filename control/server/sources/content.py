"""A file's content → objects and problems; every fault gets its words and its line. Pure.

A document that cannot be read costs itself alone; a policy that may be in it denies.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from control.server.sources import core, security
from control.server.sources.entries import (
    WORDS_CHARS_MAX,
    FileEntry,
    items_of,
    place_word,
    read_entry,
    with_effect,
)
from control.server.sources.kinds import POLICY_KINDS, SECURITY_GROUP
from control.server.sources.objects import Key
from control.server.sources.problem import UNREADABLE, Invalid, Problem
from control.server.sources.quick import FilePart, read_quickly
from control.server.sources.reader import Reader
from control.server.sources.yaml_text import Broken, Fields, Value, read_apart

_ANY_POLICY = "AuthorizationPolicy"  # its stand-in denies more than the other's
ANYWHERE = "*"  # in place of a namespace: no word of it is a name
NAMES_READ_MAX = 256  # in one broken document; real objects name a handful


@dataclass(frozen=True, slots=True)
class Content:
    """One file that parses as YAML."""

    entries: tuple[FileEntry, ...] = ()
    problems: tuple[Problem, ...] = ()  # in documents that are not even objects
    ignored: Mapping[str, int] | None = None
    parts: Mapping[bytes, FilePart] = field(default_factory=dict)  # if it was read quickly

    @property
    def is_good(self) -> bool:
        """True if all of it was understood."""
        return not self.problems and all(entry.why is None for entry in self.entries)


NOTHING = Content()


def read_content(file: str, data: bytes, before: Content = NOTHING) -> Content:
    """Objects and problems of a file; `before` is what it held when it was last read."""
    parts = read_quickly(file, data, before.parts)
    if parts is None:
        return read_carefully(file, data, before)
    entries = tuple(entry for part in parts.values() for entry in part.entries)
    ignored = Counter(kind for part in parts.values() for kind in part.ignored)
    return Content(entries, (), ignored, parts)


def unread_content(file: str, why: str) -> Content:
    """In place of a file that nobody has ever read: it may hold a policy, for any namespace."""
    name = f"unreadable-file-{place_word(file, 0)}"
    key = Key(_ANY_POLICY, core.DEFAULT_NAMESPACE, name)
    problem = Problem(file, 1, str(key), UNREADABLE, why)
    stand_in = security.stand_in(Reader(Fields(1)), key, file, why)
    entry = FileEntry(key, 1, None, problem, stand_in, is_guess=True, unplaced=ANYWHERE)
    return Content((entry,))


def read_carefully(file: str, data: bytes, before: Content) -> Content:
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
        kept = [each for each in before.entries if each.key not in shown]
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
        entries.append(
            FileEntry(key, broken.line, None, why, stand_in, is_guess=True, unplaced=each.unplaced)
        )
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
        yield from items_of(document)


@dataclass(frozen=True, slots=True)
class Guess:
    """A policy that a broken document may hold; None is what cannot be told. `unplaced`: words in
    place of its namespace that are no name."""

    kind: str
    namespace: str | None
    name: str | None
    unplaced: str = ""

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
    words = _words_of_namespaces(broken.text)
    named = sorted(each for each in words if core.is_name(each))
    unplaced = " ".join(sorted(set(words).difference(named)))[:WORDS_CHARS_MAX]
    names = sorted(_named("name", broken.text))
    # Two names may be those of two objects, or of one and of something in it: then none is sure.
    name = names[0] if len(names) == 1 else None
    guesses = [Guess(kind, each, name) for kind in kinds for each in named]
    if unplaced:
        guesses += (Guess(kind, None, name, unplaced) for kind in kinds)
    if not words:
        others = [None, *(each for each in beside if each != core.DEFAULT_NAMESPACE)]
        guesses = [Guess(kind, each, name) for kind in kinds for each in others]
    if broken.is_cut:
        guesses.append(Guess(_ANY_POLICY, None, None, ANYWHERE))
    return guesses


def _words_of_namespaces(text: str) -> set[str]:
    """All that stands behind `namespace:`, names or not."""
    found = re.findall(r"""\bnamespace["']?[ \t]*:[ \t]*([^\n\r,}\]]*)""", text)
    bare = (each.partition(" #")[0].strip().strip("\"'") for each in found[:NAMES_READ_MAX])
    return {each for each in bare if each}


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
