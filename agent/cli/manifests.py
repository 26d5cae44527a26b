"""A folder of Kubernetes manifests as text documents that can be edited one at a time.

What is not edited stays as its author wrote it, comments included. It never judges what an
object means: that is the control plane's work.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from control.kit.errors import ConfigError
from control.kit.files import write_atomic

LAB_FILE = "lab.yaml"  # lives in the same folder and is not a manifest
CLUSTER_KINDS = frozenset({"Namespace", "Node"})

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_Dumper: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
_SEPARATOR = re.compile(r"^---(?=\s|$)[^\n]*\n?", re.MULTILINE)


@dataclass(frozen=True, slots=True, order=True)
class Ref:
    """Which object: `namespace` is empty for what has none."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return (
            f"{self.kind} {self.namespace}/{self.name}"
            if self.namespace
            else (f"{self.kind} {self.name}")
        )


@dataclass(slots=True)
class Document:
    text: str
    line: int  # where it starts in its file, from 1
    start: int  # the same as an offset in characters
    value: dict[str, Any]

    @property
    def ref(self) -> Ref:
        return ref_of(self.value)

    def replace(self, value: dict[str, Any]) -> None:
        self.value = value
        self.text = yaml.dump(value, Dumper=_Dumper, sort_keys=False, default_flow_style=False)


@dataclass(slots=True)
class Manifests:
    """Files by name, each a list of documents in order."""

    files: dict[str, list[Document]] = field(default_factory=dict)

    @classmethod
    def load(cls, folder: Path) -> Manifests:
        found = cls()
        for path in sorted([*folder.glob("*.yaml"), *folder.glob("*.yml")]):
            if path.name != LAB_FILE and not path.name.startswith("."):
                found.files[path.name] = read_documents(path)
        return found

    def save(self, folder: Path, names: set[str] | None = None) -> None:
        """Write `names` (all when None); a file without documents is removed."""
        for name in sorted(names if names is not None else self.files):
            documents = self.files.get(name, [])
            if documents:
                write_atomic(folder / name, join(documents).encode())
            else:
                (folder / name).unlink(missing_ok=True)

    def documents(self) -> Iterator[tuple[str, Document]]:
        for name, documents in self.files.items():
            for document in documents:
                yield name, document

    def of_kind(self, kind: str) -> list[dict[str, Any]]:
        return [item.value for _, item in self.documents() if item.value.get("kind") == kind]

    def find(self, ref: Ref) -> tuple[str, Document] | None:
        """The object and its file. API versions do not matter: a kind is unique here."""
        for name, document in self.documents():
            if document.ref == ref:
                return name, document
        return None

    def put(self, value: dict[str, Any], new_file: str, text: str = "") -> str:
        """Add or replace an object; the name of the file that changed.

        `text` is how its author wrote it, if that still is what it means.
        """
        found = self.find(ref_of(value))
        document = found[1] if found else Document("", 1, 0, value)
        if text:
            document.value, document.text = value, text
        else:
            document.replace(value)
        if found is not None:
            return found[0]
        self.files.setdefault(new_file, []).append(document)
        return new_file

    def remove(self, ref: Ref) -> str | None:
        found = self.find(ref)
        if found is None:
            return None
        self.files[found[0]].remove(found[1])
        return found[0]


def read_documents(path: Path) -> list[Document]:
    try:
        return split(path.read_text(), str(path))
    except OSError as exc:
        raise ConfigError(f"{path}: {exc.strerror}") from exc


def split(text: str, where: str) -> list[Document]:
    """The documents of one file that hold something."""
    pieces: list[tuple[int, str]] = []
    start = 0
    for match in _SEPARATOR.finditer(text):
        pieces.append((start, text[start : match.start()]))
        start = match.end()
    pieces.append((start, text[start:]))
    documents = []
    for offset, piece in pieces:
        line = text.count("\n", 0, offset) + 1
        value = _parse(piece, where, line)
        if value is not None:
            documents.append(Document(piece, line, offset, value))
    return documents


def join(documents: list[Document]) -> str:
    return "---\n".join(
        item.text if item.text.endswith("\n") else item.text + "\n" for item in documents
    )


def _parse(piece: str, where: str, line: int) -> dict[str, Any] | None:
    try:
        value = yaml.load(piece, Loader=_Loader)
    except yaml.MarkedYAMLError as exc:
        at = line + (exc.problem_mark.line if exc.problem_mark else 0)
        raise ConfigError(f"{where}:{at}: {exc.problem}") from exc
    except yaml.YAMLError as exc:
        raise ConfigError(f"{where}:{line}: {exc}") from exc
    if value is None:
        return None
    metadata = value.get("metadata") if isinstance(value, dict) else None
    if not isinstance(value, dict) or not isinstance(value.get("kind"), str):
        raise ConfigError(f"{where}:{line}: not a Kubernetes object: no kind")
    if not isinstance(metadata, dict) or not isinstance(metadata.get("name"), str):
        raise ConfigError(f"{where}:{line}: {value['kind']}: no metadata.name")
    return value


def ref_of(value: dict[str, Any]) -> Ref:
    kind, metadata = str(value.get("kind")), value.get("metadata") or {}
    namespace = "" if kind in CLUSTER_KINDS else str(metadata.get("namespace") or "default")
    return Ref(kind, namespace, str(metadata.get("name")))
