"""The control plane's reception of objects that were just applied; never judges them itself."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.cli.manifests import Ref, TextDocument
from agent.fetch import get_json
from agent.lab.lab import Lab
from agent.lab.manifests import Manifests

READ_WITHIN_S = 2.0  # reading takes 0.3 s; a change that is nothing to the mesh gives no sign
SETTLED_S = 0.4  # several files are read within two looks of the control plane
POLL_S = 0.05
ASK_TIMEOUT_S = 2.0

Status = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Reception:
    """Lines for people: about rejected objects, those that are in force otherwise than written,
    and kinds that the mesh does not read."""

    rejected: tuple[str, ...]
    ignored: tuple[str, ...]
    noted: tuple[str, ...] = ()


def status(lab: Lab) -> Status:
    """The control plane's status page; FetchError when it does not answer."""
    found: Status = get_json(lab.run_dir / "control" / "admin.sock", "/status", ASK_TIMEOUT_S)
    return found


def wait(lab: Lab, before: Status, documents: Sequence[TextDocument]) -> Status:
    """Wait, not for long, until the control plane has read the change; its status then.

    `before`: its status before the change was written.
    """
    refs = {str(document.ref) for document in documents}
    first, deadline = _signs(before, refs), time.monotonic() + READ_WITHIN_S
    last, since, now = first, time.monotonic(), before
    while time.monotonic() < deadline:
        now = status(lab)
        signs = _signs(now, refs)
        if signs != last:
            last, since = signs, time.monotonic()
        if last != first and time.monotonic() - since >= SETTLED_S:
            break
        time.sleep(POLL_S)
    return now


def _signs(page: Status, refs: Collection[str]) -> tuple[Any, ...]:
    """The parts of a status that differ once a change has been read."""
    said = [*(page.get("problems") or []), *(page.get("notes") or [])]
    ours = [each for each in said if each["object"] in refs]
    return page.get("generation"), page.get("objects"), page.get("ignored"), ours


def verdict(
    page: Status, documents: Iterable[TextDocument], working: Manifests, where: str
) -> Reception:
    """Problems by lines of the user's own file, and kinds that are not read. Pure."""
    by_ref = {str(document.ref): document for document in documents}
    rejected, noted = (
        [
            _located(said, by_ref[said["object"]], working, where)
            for said in page.get(kind) or []
            if said["object"] in by_ref
        ]
        for kind in ("problems", "notes")
    )
    known = page.get("objects") or {}
    ignored = [
        f"{ref}: the control plane reads no {document.ref.kind}, it has no effect"
        for ref, document in by_ref.items()
        if known and document.ref.kind not in known
    ]
    return Reception(tuple(rejected), tuple(ignored), tuple(noted))


def _located(problem: Mapping[str, Any], mine: TextDocument, working: Manifests, where: str) -> str:
    """A line about the problem. The working copy may hold the object at another line."""
    file, line = str(problem["file"]), int(problem["line"])
    copy = _copy(working, mine.ref, Path(file).name)
    if copy is not None and copy.text.strip() == mine.text.strip():
        file, line = where, mine.line + line - copy.line
    return f"{file}:{line}: {mine.ref}: {problem['message']}"


def _copy(working: Manifests, ref: Ref, file: str) -> TextDocument | None:
    for document in working.files.get(file, []):
        if document.ref == ref:
            return document
    return None
