"""The mesh's processes on this host, and questions to them, asked side by side.

A node is a folder below the run folder, whether or not its processes live: a stopped process may
take its socket along, and must be missed all the same.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from agent.cli.shape import check_page
from agent.fetch import SIGN_OF_LIFE_S, FetchError, get_json
from control.kit.errors import ConfigError

PROCESSES_AT_ONCE = 64  # threads that mostly wait; a host has one node, a large lab some dozens
NOT_FOUND = 404
CONTROL = "control"
WAYPOINTS = "waypoints"  # the folder of a lab's; each has a socket there
_SOCKETS = {"agent": "agent.sock", "ztunnel": "ztunnel.sock"}
# Log levels: a page without work behind it, which every process has.
LOG_PAGES = {"agent": "/logging", "ztunnel": "/logging", CONTROL: "/log"}
_MARKS = (".sock", ".lock")  # files of a node's processes


Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class MeshProcess:
    kind: str  # agent, ztunnel or control
    node: str
    socket: Path

    @property
    def name(self) -> str:
        return f"{self.kind}-{self.node}" if self.node else self.kind


@dataclass(slots=True)
class Heard:
    """Pages of one process, and why one is missing."""

    pages: dict[str, Any] = field(default_factory=dict)
    error: str = ""


def nodes(run_dir: Path) -> list[str]:
    """Nodes with a folder; PermissionError if one may be hidden from us."""
    found = []
    try:
        folders = sorted(path for path in run_dir.iterdir() if path.is_dir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    for path in folders:
        if not os.access(path, os.R_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        if _is_node(path):
            found.append(path.name)
    return found


def _is_node(folder: Path) -> bool:
    if folder.name in (CONTROL, WAYPOINTS):  # a node may have that name, too
        return any((folder / name).exists() for name in _SOCKETS.values())
    return (folder / "state").is_dir() or any(
        path.name.endswith(_MARKS) for path in folder.iterdir()
    )


def of_node(run_dir: Path, kind: str, node: str) -> MeshProcess:
    return MeshProcess(kind, node, run_dir / node / _SOCKETS[kind])


def control(run_dir: Path) -> MeshProcess | None:
    """The control plane, when this is its host."""
    folder = run_dir / CONTROL
    return MeshProcess(CONTROL, "", folder / "admin.sock") if folder.is_dir() else None


def side_by_side(act: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    with ThreadPoolExecutor(PROCESSES_AT_ONCE) as pool:
        return list(pool.map(act, items))


def ask(
    asked: Mapping[MeshProcess, Mapping[str, str]], timeout_s: float
) -> dict[MeshProcess, Heard]:
    """Fetch pages (name → path) from each process; the silent ones cost SIGN_OF_LIFE_S."""
    heard = side_by_side(lambda item: _ask_one(*item, timeout_s), asked.items())
    return dict(zip(asked, heard, strict=True))


def sign_of_life_s(timeout_s: float) -> float:
    return min(timeout_s, SIGN_OF_LIFE_S)


def _ask_one(process: MeshProcess, pages: Mapping[str, str], timeout_s: float) -> Heard:
    heard = Heard()
    try:
        get_json(process.socket, LOG_PAGES[process.kind], sign_of_life_s(timeout_s))
    except FetchError as exc:
        if not exc.status:
            heard.error = f"{process.socket}: {exc.why}"
            return heard
    for name, page in pages.items():
        try:
            value = get_json(process.socket, page, timeout_s)
            check_page(name, value, f"GET {page} on {process.socket}")
            heard.pages[name] = value
        except ConfigError as exc:
            heard.error = heard.error or str(exc)
        except FetchError as exc:
            if exc.status == NOT_FOUND:  # an older version has no such page
                continue
            heard.error = heard.error or str(exc)
            if not exc.status:  # it fell silent: the other pages would be, too
                return heard
    if pages and not heard.pages and not heard.error:
        heard.error = f"{process.socket}: no page that is asked for: is it Tulle's?"
    return heard
