"""The lab's working copy: a folder of manifests that is changed one object at a time.

Objects that are not changed keep their author's text, comments included.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agent.cli.manifests import Ref, TextDocument, read_documents, ref_of
from control.kit.files import write_atomic

LAB_FILE = "lab.yaml"  # in the same folder, but no manifest

# Policies in it are the whole mesh's, if the control plane is told nothing else.
ROOT_NAMESPACE = "istio-system"


@dataclass(slots=True)
class Manifests:
    """Documents in order, by file name."""

    files: dict[str, list[TextDocument]] = field(default_factory=dict)

    @classmethod
    def load(cls, folder: Path) -> Manifests:
        found = cls()
        for path in sorted([*folder.glob("*.yaml"), *folder.glob("*.yml")]):
            if path.name != LAB_FILE and not path.name.startswith("."):
                found.files[path.name] = read_documents(path)
        return found

    def save(self, folder: Path, names: set[str] | None = None) -> None:
        """Write the files in `names` (None: all); a file left without documents is removed."""
        for name in sorted(names if names is not None else self.files):
            documents = self.files.get(name, [])
            if documents:
                write_atomic(folder / name, join(documents).encode())
            else:
                (folder / name).unlink(missing_ok=True)

    def documents(self) -> Iterator[tuple[str, TextDocument]]:
        for name, documents in self.files.items():
            for document in documents:
                yield name, document

    def of_kind(self, kind: str) -> list[dict[str, Any]]:
        return [item.value for _, item in self.documents() if item.value.get("kind") == kind]

    def namespaces_missing(self, names: Iterable[str]) -> list[str]:
        """Those of `names` that no object of this copy stands for: no namespace, no pod. The root
        namespace needs neither."""
        known = {"", ROOT_NAMESPACE}
        for _, document in self.documents():
            ref = document.ref
            if ref.kind in ("Namespace", "Pod"):
                known.add(ref.name if ref.kind == "Namespace" else ref.namespace)
        return sorted(set(names) - known)

    def find(self, ref: Ref) -> tuple[str, TextDocument] | None:
        """The file name and document of an object; API versions are ignored."""
        for name, document in self.documents():
            if document.ref == ref:
                return name, document
        return None

    def put(self, value: dict[str, Any], new_file: str, text: str = "") -> str:
        """Add or replace an object and return the name of the changed file.

        `text` is the author's own text, if it still means `value`.
        """
        found = self.find(ref_of(value))
        document = found[1] if found else TextDocument("", 1, 0, value)
        if text:
            document.value, document.text = value, text
        else:
            document.replace(value)
        if found is not None:
            return found[0]
        self.files.setdefault(new_file, []).append(document)
        return new_file

    def remove(self, ref: Ref) -> str | None:
        """Remove an object and return the name of the changed file; None if it is not there."""
        found = self.find(ref)
        if found is None:
            return None
        self.files[found[0]].remove(found[1])
        return found[0]


def join(documents: list[TextDocument]) -> str:
    """The text of a file that holds these documents."""
    return "---\n".join(
        item.text if item.text.endswith("\n") else item.text + "\n" for item in documents
    )
