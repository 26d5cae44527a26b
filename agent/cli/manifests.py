"""Kubernetes manifests as text documents, each with its place in its file; judges no object.

The text stays beside the value, so that an edit of one document leaves its neighbours and its own
comments as their author wrote them. The meaning of an object is the control plane's business.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from control.kit.errors import ConfigError

CLUSTER_KINDS = frozenset({"GatewayClass", "Namespace", "Node"})

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_Dumper: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
SUFFIXES = (".yaml", ".yml", ".json")
# The line of a separator, or only its dashes when the document begins on it.
_SEPARATOR = re.compile(r"^---(?:[ \t]*(?:#[^\n]*)?\r?(?:\n|\Z)|(?=[ \t]))", re.MULTILINE)
_DIRECTIVES = re.compile(r"^%[^\n]*$", re.MULTILINE)


@dataclass(frozen=True, slots=True, order=True)
class Ref:
    """Name of an object; `namespace` is empty for kinds that have none."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        where = f"{self.namespace}/" if self.namespace else ""
        return f"{self.kind} {where}{self.name}"


@dataclass(slots=True)
class TextDocument:
    """One object: its text as written, and the value that the text means."""

    text: str
    line: int  # where it starts in its file, from 1
    start: int  # the same as an offset in characters
    value: dict[str, Any]

    @property
    def ref(self) -> Ref:
        return ref_of(self.value)

    def replace(self, value: dict[str, Any]) -> None:
        """Take a new value; its text is written afresh, without the author's comments."""
        self.value = value
        self.text = yaml.dump(value, Dumper=_Dumper, sort_keys=False, default_flow_style=False)


def files(folder: Path) -> list[Path]:
    """The files that the control plane reads, in its order: links are followed, each folder once,
    and hidden names are left out."""
    found: list[str] = []
    seen: set[tuple[int, int]] = set()
    for at, folders, names in os.walk(folder, followlinks=True):
        place = os.stat(at)
        if (place.st_dev, place.st_ino) in seen:
            folders.clear()
            continue
        seen.add((place.st_dev, place.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [
            os.path.join(at, name)
            for name in names
            if name.endswith(SUFFIXES) and not name.startswith(".")
        ]
    return [Path(path) for path in sorted(found)]


def read_text(path: Path) -> str:
    """A file's text with its line ends as they are; ConfigError when it cannot be read."""
    try:
        return path.read_bytes().decode()
    except OSError as exc:
        raise ConfigError(f"{path}: {exc.strerror}") from exc
    except UnicodeDecodeError as exc:
        raise ConfigError(f"{path}: not UTF-8 text") from exc


def read_documents(path: Path) -> list[TextDocument]:
    """The documents of a file; ConfigError with file and line when it cannot be read."""
    return split(read_text(path), str(path))


def split(text: str, where: str) -> list[TextDocument]:
    """The objects of one file's `text`; `where` names the file in errors.

    ConfigError names every document that cannot be read.
    """
    documents, errors = read_apart(text, where)
    if errors:
        raise ConfigError("\n".join(errors))
    return [each for document in documents for each in _flat(document)]


def _flat(document: TextDocument) -> list[TextDocument]:
    """The objects of a list as documents of their own."""
    if not is_list(document.value):
        return [document]
    found = []
    for value in objects(document.value):
        found.append(TextDocument("", document.line, document.start, value))
        found[-1].replace(value)
    return found


def read_apart(text: str, where: str) -> tuple[list[TextDocument], list[str]]:
    """(documents that can be read, errors of the others): one does not hide the rest."""
    documents, errors = [], []
    for offset, piece in _pieces(text):
        line = text.count("\n", 0, offset) + 1
        try:
            value = _parse(piece, where, line)
        except ConfigError as exc:
            errors.append(str(exc))
            continue
        if value is not None:
            documents.append(TextDocument(piece, line, offset, value))
    return documents, errors


def _pieces(text: str) -> Iterator[tuple[int, str]]:
    """(offset, text) of each document. What stands on the line of its `---` belongs to it."""
    start = 0
    for match in _SEPARATOR.finditer(text):
        yield start, text[start : match.start()]
        start = match.end()
    yield start, text[start:]


def _parse(piece: str, where: str, line: int) -> dict[str, Any] | None:
    if not _DIRECTIVES.sub("", piece).strip():
        return None
    try:
        value = yaml.load(piece, Loader=_Loader)
    except yaml.MarkedYAMLError as exc:
        at = line + (exc.problem_mark.line if exc.problem_mark else 0)
        raise ConfigError(f"{where}:{at}: {exc.problem}") from exc
    except (yaml.YAMLError, ValueError) as exc:  # a date that no calendar has is a ValueError
        raise ConfigError(f"{where}:{line}: {exc}") from exc
    except RecursionError as exc:
        raise ConfigError(f"{where}:{line}: nested too deeply") from exc
    if value is None:
        return None
    metadata = value.get("metadata") if isinstance(value, dict) else None
    if not isinstance(value, dict) or not isinstance(value.get("kind"), str):
        raise ConfigError(f"{where}:{line}: not a Kubernetes object: no kind")
    if is_list(value):
        return value
    if not isinstance(metadata, dict) or not isinstance(metadata.get("name"), str):
        raise ConfigError(f"{where}:{line}: {value['kind']}: no metadata.name")
    return value


def objects(value: dict[str, Any]) -> list[dict[str, Any]]:
    """The objects of a document: itself, or the named ones of a list."""
    if not is_list(value):
        return [value]
    return [item for item in value["items"] if _is_object(item)]


def places(value: dict[str, Any], ref: Ref) -> list[int | None]:
    """Places of the object in a document: None for all of it, or an index in a list."""
    if not is_list(value):
        return [None] if ref_of(value) == ref else []
    items = enumerate(value["items"])
    return [index for index, item in items if _is_object(item) and ref_of(item) == ref]


def _is_object(item: Any) -> bool:
    metadata = item.get("metadata") if isinstance(item, dict) else None
    named = isinstance(metadata, dict) and isinstance(metadata.get("name"), str)
    return named and isinstance(item.get("kind"), str)


def is_list(value: dict[str, Any]) -> bool:
    """True for a List of objects, of any kind."""
    return str(value.get("kind")).endswith("List") and isinstance(value.get("items"), list)


def ref_of(value: dict[str, Any]) -> Ref:
    kind, metadata = str(value.get("kind")), value.get("metadata") or {}
    namespace = "" if kind in CLUSTER_KINDS else str(metadata.get("namespace") or "default")
    return Ref(kind, namespace, str(metadata.get("name")))
