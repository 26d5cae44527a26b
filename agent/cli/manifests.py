"""Kubernetes manifests as text documents, each with its place in its file; judges no object.

The text stays beside the value, so that an edit of one document leaves its neighbours and its own
comments as their author wrote them. The meaning of an object is the control plane's business.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from control.kit.errors import ConfigError

CLUSTER_KINDS = frozenset({"Namespace", "Node"})

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_Dumper: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
_SEPARATOR = re.compile(r"^---(?=\s|$)[^\n]*\n?", re.MULTILINE)


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


def read_documents(path: Path) -> list[TextDocument]:
    """The documents of a file; ConfigError with file and line when it cannot be read."""
    try:
        return split(path.read_text(), str(path))
    except OSError as exc:
        raise ConfigError(f"{path}: {exc.strerror}") from exc


def split(text: str, where: str) -> list[TextDocument]:
    """The non-empty documents of one file's `text`; `where` names the file in errors."""
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
            documents.append(TextDocument(piece, line, offset, value))
    return documents


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
