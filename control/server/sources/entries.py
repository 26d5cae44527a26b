"""One document → one object, or the reason why not and the stand-in that takes its place. Pure; the
same for every source."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace

from control.server.sources import core, security
from control.server.sources.kinds import (
    POLICY_KINDS,
    SECURITY_GROUP,
    ObjectKind,
    find_kind,
    similar_policy,
)
from control.server.sources.objects import (
    AnyObject,
    AuthorizationPolicy,
    Key,
    PeerAuthentication,
)
from control.server.sources.problem import Invalid, Problem
from control.server.sources.reader import Reader
from control.server.sources.yaml_text import Fields, Items, Value, YamlDocument

WORDS_CHARS_MAX = 1024  # in place of a namespace

# Errors of a reader that meets a value nobody thought of, besides Invalid.
_BUGS = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)


@dataclass(frozen=True, slots=True)
class FileEntry:
    """One object of a file. `object` is None when it was refused, for the reason in `why`.
    `is_guess`: its key is what could be told of a document that nobody can read. `unplaced` are the
    words in place of its namespace, if they are no name: it may be for any."""

    key: Key
    line: int
    object: AnyObject | None
    why: Problem | None = None
    stand_in: AnyObject | None = None
    is_guess: bool = False
    unplaced: str = ""


def items_of(document: YamlDocument) -> Iterator[tuple[Value, int]]:
    """A document, or the items of one that is a list of objects, each with its line."""
    value = document.value
    if value is None:
        return
    items = value.get("items") if isinstance(value, Fields) else None
    if isinstance(value, Fields) and isinstance(items, Items):
        kind = value.get("kind")
        if isinstance(kind, str) and kind.endswith("List"):
            yield from zip(items, items.lines, strict=True)
            return
    yield value, value.line if isinstance(value, Fields | Items) else document.line


def choose(entry: FileEntry, good: AnyObject | None) -> tuple[AnyObject | None, Problem | None]:
    """Object in force for an entry, and the problem to show. `good` is its last good version."""
    if entry.object is not None or entry.why is None:
        return entry.object, None
    if good is not None:
        return good, with_effect(entry.why, "its last good version stays in force")
    if entry.stand_in is not None:
        return entry.stand_in, with_effect(entry.why, _effect(entry.key))
    return None, with_effect(entry.why, "ignored")


def good_one(in_force: AnyObject | None) -> AnyObject | None:
    """Last good version of what is in force: itself, unless it only stands in."""
    if isinstance(in_force, AuthorizationPolicy | PeerAuthentication) and in_force.broken:
        return None
    return in_force


def with_effect(problem: Problem, effect: str) -> Problem:
    return replace(problem, message=f"{problem.message}; {effect}")


def _effect(key: Key) -> str:
    if key.kind == "PeerAuthentication":
        return "its scope is STRICT until this is repaired"
    return "everything in its scope is denied until this is repaired"


def read_entry(file: str, document: Reader, position: int) -> FileEntry | None:
    """None: a kind to ignore. Raises Invalid when nothing at all is known about the object."""
    try:
        kind = find_kind(document)
        if kind is None:
            return None
        key = core.read_key(document)
    except Invalid as exc:
        policy = policy_kind(document)
        if policy is None:
            raise
        key = _guess_key(policy, file, document, position)
        refused = _refused(file, document, key, exc)
        return replace(refused, is_guess=True, unplaced=_unplaced(document))
    return read_as(kind, file, document, key)


def read_as(kind: ObjectKind, file: str, document: Reader, key: Key) -> FileEntry:
    """The document as an object of a kind that is known, under a key that is."""
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


def policy_kind(document: Reader) -> str | None:
    """Kind of policy that a document may be whose kind or name cannot be told."""
    kind, version = document.fields.get("kind"), document.fields.get("apiVersion")
    if isinstance(kind, str) and kind in POLICY_KINDS:
        return kind
    if not isinstance(version, str) or version.rpartition("/")[0] != SECURITY_GROUP:
        return None
    if not isinstance(kind, str) or not kind:
        return "AuthorizationPolicy"  # its stand-in denies more than the other's
    return similar_policy(kind)


def _guess_key(kind: str, file: str, document: Reader, position: int) -> Key:
    """Key of a policy whose own key cannot be read: what can be read, else where it stands."""
    meta = document.fields.get("metadata")
    fields = meta if isinstance(meta, Fields) else Fields(document.line())
    name, namespace = fields.get("name"), fields.get("namespace")
    if not isinstance(name, str) or not core.is_name(name):
        name = f"unnamed-line-{document.line()}-{place_word(file, position)}"
    if not isinstance(namespace, str) or not core.is_name(namespace):
        namespace = core.DEFAULT_NAMESPACE
    return Key(kind, namespace, name)


def _unplaced(document: Reader) -> str:
    meta = document.fields.get("metadata")
    namespace = meta.get("namespace") if isinstance(meta, Fields) else None
    is_told = isinstance(namespace, str) and (not namespace or core.is_name(namespace))
    return "" if namespace is None or is_told else str(namespace)[:WORDS_CHARS_MAX]


def place_word(file: str, number: int) -> str:
    """A short word for one place in one file. No two policies without a name may get the same key:
    one of them would be passed over as a duplicate."""
    text = f"{number} {file}".encode(errors="surrogateescape")
    return hashlib.blake2b(text, digest_size=6).hexdigest()
