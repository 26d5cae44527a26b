"""A look at the host for what tests make there: namespaces, pins, cgroups, processes, run folders.

Compare two looks: what is new was left behind. Names are matched where a host makes such things of
its own accord (cgroups); elsewhere whatever is new counts. Folders that only hold what others made
(`tulle` in bpffs and in the cgroup tree) do not count themselves.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from agent.datapath import cgroups

NAMESPACES = Path("/run/netns")
PINS = Path("/sys/fs/bpf")
RUN = Path("/run/tulle")
REPOSITORY = Path(__file__).resolve().parents[3]
HOLDERS = ("tulle", "tulle-lab")
_CGROUP = re.compile(r"t[a-z]-")  # `tk-17-1`, `ta-0a1b2c`
_CGROUP_DEPTH = 3
# Named after the process that made it, or after the last digits of its pid: `tk-17-1`, `te17a`.
_OWNED = re.compile(r"\b(?:t[a-z]-|te|t|m)(\d+)(?:-|[a-z]?\b)")
SHORT_PIDS = 100000  # names of nodes have no room for more
# A process that was told to end is gone within moments; a cgroup goes when its last process has.
SETTLE_S = 5.0


def look() -> frozenset[str]:
    """Every thing on this host that a test may have made, by kind and name."""
    found: set[str] = set()
    for kind, things in (
        ("namespace", _entries(NAMESPACES)),
        ("pin", (*_entries(PINS), *_entries(PINS / HOLDERS[0]))),
        ("cgroup", _cgroups(cgroups.find_root(), _CGROUP_DEPTH)),
        ("folder", _entries(RUN)),
        ("process", _processes()),
    ):
        found.update(f"{kind} {thing}" for thing in things)
    return frozenset(each for each in found if not _is_of_another_run(each))


def _is_of_another_run(thing: str) -> bool:
    """True for a thing of another run of tests that is going on: it will clean up itself."""
    owner = _OWNED.search(thing)
    if owner is None or int(owner[1]) in (os.getpid(), os.getpid() % SHORT_PIDS):
        return False
    number = int(owner[1])
    running = (int(each.name) for each in Path("/proc").glob("[0-9]*"))
    return any(number in (pid, pid % SHORT_PIDS) for pid in running)


def left(
    before: frozenset[str],
    wait_s: float = SETTLE_S,
    look: Callable[[], frozenset[str]] = look,
) -> list[str]:
    """Things that are new since `before`; whatever is about to go gets `wait_s` for it."""
    end = time.monotonic() + wait_s
    while (new := look() - before) and time.monotonic() < end:
        time.sleep(0.05)
    return sorted(new)


@contextlib.contextmanager
def none_left(*folders: Path) -> Iterator[None]:
    """Check that all that is made inside is gone at the end, these folders included."""
    before = look()
    yield
    found = left(before)
    assert not found, "\n".join(["left behind:", *found])  # no rewriting here: say it
    assert [folder for folder in folders if folder.exists()] == []


def _entries(folder: Path) -> Iterator[Path]:
    yield from (entry for entry in folder.glob("*") if entry.name not in HOLDERS)


def _cgroups(folder: Path, depth: int) -> Iterator[Path]:
    for entry in folder.glob("*/"):
        if _CGROUP.match(entry.name) or folder.name in HOLDERS:
            yield entry
        elif depth > 1:
            yield from _cgroups(entry, depth - 1)


def _processes() -> Iterator[str]:
    """Processes of this repository that are our children, orphans, or in a namespace of a test.

    Somebody may run other things from the same tree meanwhile, so the path alone says nothing.
    """
    home = os.readlink("/proc/self/ns/net")
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError, PermissionError):
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
            environment = (folder / "environ").read_bytes()
            is_of_repository = str(REPOSITORY) in command or bytes(REPOSITORY) in environment
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            is_elsewhere = os.readlink(folder / "ns/net") != home
            if is_of_repository and (parent in (1, os.getpid()) or is_elsewhere):
                yield f"{folder.name} {command}"
