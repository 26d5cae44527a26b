"""One node's pins on bpffs: the place of each map and link; opens or creates them. No policy.

    <pin root>/agent                                  held by the agent that serves the node
    <pin root>/v<layout hash>/maps/<name>             shared by all programs of the node
                              links/<hook>            on the cgroup2 root; probe: the kubelet's
                              tunnels/<cgroup id>/    getsockopt, setsockopt, bind4, bind6
                              pods/<uid>/             see pods.py

The hash keeps programs and maps of two layouts apart; takeover.py moves pods from one to another.
"""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from agent.datapath import bpffs
from agent.datapath.attach import Link, Program
from agent.datapath.errors import DatapathError, NoBpffs
from agent.datapath.maps import Map
from bpf import layout

# Beside the versions; no file can be made on a bpffs.
HOLDER = "agent"


class PinFolder:
    """Paths of one version's pins."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.maps = path / "maps"
        self.links = path / "links"
        self.ztunnels = path / "tunnels"
        self.pods = path / "pods"

    def make(self) -> None:
        for directory in (self.maps, self.links, self.ztunnels, self.pods):
            directory.mkdir(parents=True, exist_ok=True)

    def pod_folders(self) -> list[Path]:
        return _subfolders(self.pods)

    def ztunnel_folders(self) -> list[Path]:
        return _subfolders(self.ztunnels)

    def remove(self) -> None:
        """Remove everything in it. Programs fall off their hooks, those that capture first."""
        order = [*_pins(self.links, first="connect"), *_nested(self.pods), *_nested(self.ztunnels)]
        for pin in [*order, *_pins(self.maps)]:
            unpin(pin)
        for directory in (self.maps, self.links, self.ztunnels, self.pods, self.path):
            with contextlib.suppress(FileNotFoundError):
                directory.rmdir()


def _subfolders(directory: Path) -> list[Path]:
    try:
        return sorted(directory.iterdir())
    except FileNotFoundError:
        return []


def _pins(directory: Path, first: str = "") -> list[Path]:
    return sorted(_subfolders(directory), key=lambda pin: (not pin.name.startswith(first), pin))


def _nested(directory: Path) -> Iterator[Path]:
    for folder in _subfolders(directory):
        yield from _subfolders(folder)
        yield folder


def unpin(path: Path) -> bool:
    """Remove a pin or an empty folder of pins; False when it was not there."""
    try:
        path.rmdir() if path.is_dir() else path.unlink()
    except FileNotFoundError:
        return False
    return True


def versions(pin_root: Path) -> list[PinFolder]:
    return [PinFolder(path) for path in _subfolders(pin_root) if path.name.startswith("v")]


@contextlib.contextmanager
def prepared(pin_root: Path) -> Iterator[None]:
    """Make sure that the root exists and lies on a bpffs, and keep other agents out."""
    existing = pin_root
    while not existing.is_dir() and existing != existing.parent:
        existing = existing.parent
    if not bpffs.is_bpffs(existing):
        raise NoBpffs(f"{pin_root} is not on a bpffs")
    pin_root.mkdir(parents=True, exist_ok=True)
    handle = os.open(pin_root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def create_map(name: str) -> Map:
    spec = layout.MAPS[name]
    return Map.create(spec.type, spec.key_bytes, spec.value_bytes, spec.max_entries, name=name)


def adopt_map(path: Path, name: str) -> Map:
    """The map pinned there, or a new one; DatapathError if it has another layout."""
    if not path.exists():
        created = create_map(name)
        created.pin(path)
        return created
    found = Map.open(path)
    spec = layout.MAPS[name]
    if (found.type, found.key_bytes, found.value_bytes) != (
        spec.type,
        spec.key_bytes,
        spec.value_bytes,
    ):
        found.close()
        raise DatapathError(f"{path} is not the map that this version expects")
    return found


def adopt_link(path: Path, program: Program, target: Path, attach_type: int) -> None:
    """Pin the program on the cgroup's hook; a different one is replaced in one step."""
    if path.exists():
        with Link.open(path) as link:
            if link.info().target == target.stat().st_ino:
                link.replace(program)
                return
        unpin(path)  # it is on another cgroup, or on one that is gone
    handle = os.open(target, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with Link.create(program, handle, attach_type, what=f"{path.name} to {target}") as link:
            link.pin(path)
    finally:
        os.close(handle)
