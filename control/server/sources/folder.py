"""File contents in, objects and problems out: decides which objects are in force. Pure.

The rule: an object that can be understood is in force; one that cannot keeps its last good version;
a policy that never was understood is replaced by a stand-in that denies.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from control.server.sources import core, security
from control.server.sources.kinds import POLICY_KINDS, SECURITY_GROUP, find_kind
from control.server.sources.objects import AnyObject, Key, Objects, collect
from control.server.sources.problem import Invalid, Problem
from control.server.sources.reader import Reader
from control.server.sources.yaml_text import Broken, Fields, Items, Value, read_apart

# Errors of a reader that meets a value nobody thought of, besides Invalid.
_BUGS = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
NAMES_READ_MAX = 256  # in one broken document; real objects name a handful


@dataclass(frozen=True, slots=True)
class FileEntry:
    """One object of a file. `object` is None when it was refused, for the reason in `why`."""

    key: Key
    line: int
    object: AnyObject | None
    why: Problem | None = None
    stand_in: AnyObject | None = None


@dataclass(frozen=True, slots=True)
class Content:
    """One file that parses as YAML."""

    entries: tuple[FileEntry, ...] = ()
    problems: tuple[Problem, ...] = ()  # in documents that are not even objects
    ignored: Mapping[str, int] | None = None


@dataclass(frozen=True, slots=True)
class Snapshot:
    objects: Objects
    problems: tuple[Problem, ...]
    ignored: Mapping[str, int]


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
        self._file_problems[file] = Problem(file, 1, "", "unreadable", why)

    def forget(self, file: str) -> None:
        self._contents.pop(file, None)
        self._file_problems.pop(file, None)

    def snapshot(self) -> Snapshot:
        problems = list(self._file_problems.values())
        ignored: Counter[str] = Counter()
        chosen: dict[Key, FileEntry] = {}
        for file in sorted(self._contents):
            content = self._contents[file]
            problems += content.problems
            ignored.update(content.ignored or {})
            for entry in content.entries:
                first = chosen.setdefault(entry.key, entry)
                if first is not entry:
                    problems.append(_duplicate(file, entry, first))
        in_force: dict[Key, AnyObject] = {}
        for key, entry in chosen.items():
            value, problem = self._in_force(entry)
            if value is not None:
                in_force[key] = value
            if problem is not None:
                problems.append(problem)
        self._remember(chosen)
        return Snapshot(collect(in_force), tuple(sorted(problems)), dict(ignored))

    def _in_force(self, entry: FileEntry) -> tuple[AnyObject | None, Problem | None]:
        if entry.object is not None or entry.why is None:
            return entry.object, None
        good = self._last_good.get(entry.key)
        if good is not None:
            return good, _and(entry.why, "its last good version stays in force")
        if entry.stand_in is not None:
            return entry.stand_in, _and(entry.why, _effect(entry.key))
        return None, _and(entry.why, "ignored")

    def _remember(self, chosen: Mapping[Key, FileEntry]) -> None:
        """Keep the last good version of exactly what is still mentioned somewhere."""
        self._last_good = {
            key: good
            for key, entry in chosen.items()
            if (good := entry.object or self._last_good.get(key)) is not None
        }


def _and(problem: Problem, effect: str) -> Problem:
    return replace(problem, message=f"{problem.message}; {effect}")


def _effect(key: Key) -> str:
    if key.kind == "PeerAuthentication":
        return "its scope is STRICT until this is repaired"
    return "everything in its scope is denied until this is repaired"


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
            entry = _read_entry(file, document, position)
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
        for each in broken:
            _read_broken(file, each, kept, entries, problems)
    return Content(tuple(entries), tuple(problems), dict(ignored))


def _read_broken(
    file: str,
    broken: Broken,
    kept: list[FileEntry],
    entries: list[FileEntry],
    problems: list[Problem],
) -> None:
    """A document that is not YAML. What the file held before and shows no more may be in it, and
    stays in force; a policy that nobody has ever read denies."""
    problem = Problem(file, broken.line, "", broken.why.reason, str(broken.why))
    new = [each for each in guess(broken) if not any(each.may_be(old.key) for old in kept)]
    for each in new:
        key = each.key(file, broken.line)
        stand_in = security.stand_in(Reader(Fields(broken.line)), key, file, str(broken.why))
        why = replace(problem, object=str(key))
        entries.append(FileEntry(key, broken.line, None, why, stand_in))
    if not new:
        holds = any((each.object or each.stand_in) is not None for each in kept)
        effect = "its last good content stays in force" if holds else "ignored"
        problems.append(_and(problem, effect))


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


def _read_entry(file: str, document: Reader, position: int) -> FileEntry | None:
    """None: a kind to ignore. Raises Invalid when nothing at all is known about the object."""
    try:
        kind = find_kind(document)
        if kind is None:
            return None
        key = core.read_key(document)
    except Invalid as exc:
        if not _is_policy(document):
            raise
        return _refused(file, document, _guess_key(file, document, position), exc)
    try:
        value = kind.read(document, core.read_meta(document, key, file))
    except Invalid as exc:
        return _refused(file, document, key, exc)
    except _BUGS as exc:
        # A bug of ours costs the one object that shows it, and a policy denies as if unreadable.
        fault = Invalid(f"cannot be read ({type(exc).__name__}: {exc})", document.line())
        return _refused(file, document, key, fault)
    return FileEntry(key, document.line(), value)


def _refused(file: str, document: Reader, key: Key, exc: Invalid) -> FileEntry:
    problem = Problem(file, exc.line, str(key), exc.reason, str(exc))
    stand_in: AnyObject | None = None
    if key.kind in POLICY_KINDS:
        stand_in = security.stand_in(document, key, file, str(exc))
    return FileEntry(key, document.line(), None, problem, stand_in)


def _is_policy(document: Reader) -> bool:
    kind = document.fields.get("kind")
    return isinstance(kind, str) and kind in POLICY_KINDS


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
        name = self.name or f"unreadable-line-{line}-{_place(file, line)}"
        return Key(self.kind, namespace, name)


def guess(broken: Broken) -> list[Guess]:
    """Policies that a document which is not YAML may hold; none when no word of it says policy."""
    kinds = sorted(kind for kind in POLICY_KINDS if kind in broken.text)
    if not kinds and SECURITY_GROUP in broken.text:
        kinds = sorted(POLICY_KINDS)
    namespaces: list[str | None] = [*sorted(_named("namespace", broken.text))]
    names = sorted(_named("name", broken.text))
    # Two names may be those of two objects, or of one and of something in it: then none is sure.
    name = names[0] if len(names) == 1 else None
    return [Guess(kind, namespace, name) for kind in kinds for namespace in namespaces or [None]]


def _named(field: str, text: str) -> set[str]:
    """Values that stand behind `field:` and are Kubernetes names."""
    found = re.findall(rf"""\b{field}["']?\s*:\s*["']?([^\s"',}}\]]+)""", text)
    return {each for each in found[:NAMES_READ_MAX] if core.is_name(each)}


def _guess_key(file: str, document: Reader, position: int) -> Key:
    """Key of a policy whose own key cannot be read: what can be read, else where it stands."""
    meta = document.fields.get("metadata")
    fields = meta if isinstance(meta, Fields) else Fields(document.line())
    name, namespace = fields.get("name"), fields.get("namespace")
    if not isinstance(name, str) or not core.is_name(name):
        name = f"unnamed-line-{document.line()}-{_place(file, position)}"
    if not isinstance(namespace, str) or not core.is_name(namespace):
        namespace = core.DEFAULT_NAMESPACE
    return Key(str(document.fields["kind"]), namespace, name)


def _place(file: str, number: int) -> str:
    """A short word for one place in one file. No two policies without a name may get the same key:
    one of them would be passed over as a duplicate."""
    text = f"{number} {file}".encode(errors="surrogateescape")
    return hashlib.blake2b(text, digest_size=6).hexdigest()


def _label(document: Reader) -> str:
    """A name for people, of a document that may be anything."""
    meta = document.fields.get("metadata")
    name = meta.get("name") if isinstance(meta, Fields) else None
    kind = document.fields.get("kind")
    return " ".join(each for each in (kind, name) if isinstance(each, str))
