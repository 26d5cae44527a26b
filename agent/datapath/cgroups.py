"""The cgroup2 tree: finds it, identifies directories, moves processes; attaches no program."""

import os
from pathlib import Path

from agent.datapath.errors import NoCgroup2

# Children that fork while they are moved are found in the next round; ten rounds outlast any
# start-up, and a fork bomb must not hold the agent.
_MOVE_ROUNDS_MAX = 10


def find_root(mounts: str | None = None) -> Path:
    """The cgroup2 mount: /sys/fs/cgroup when pure, /sys/fs/cgroup/unified when hybrid."""
    if mounts is None:
        mounts = Path("/proc/self/mounts").read_text(encoding="utf-8")
    for line in mounts.splitlines():
        fields = line.split()
        if len(fields) >= 3 and fields[2] == "cgroup2":
            return Path(fields[1].encode().decode("unicode_escape"))  # \040 is a blank
    raise NoCgroup2("no cgroup2 file system is mounted")


def cgroup_id(directory: Path) -> int:
    """The id that bpf_get_current_cgroup_id() gives for its processes: the directory's inode."""
    return directory.stat().st_ino


def create(directory: Path) -> Path:
    directory.mkdir(exist_ok=True)
    return directory


def remove(directory: Path) -> None:
    """Remove an empty directory; OSError (EBUSY) while a process is in it."""
    try:
        directory.rmdir()
    except FileNotFoundError:
        return


def members(directory: Path) -> set[int]:
    return {int(pid) for pid in (directory / "cgroup.procs").read_text().split()}


def descendants(pid: int, processes: Path = Path("/proc")) -> set[int]:
    """The process and all its descendants.

    Parents are read from all of /proc: lists of children are a kernel option.
    """
    children: dict[int, list[int]] = {}
    for entry in os.listdir(processes):
        if not entry.isdigit():
            continue
        try:
            stat = (processes / entry / "stat").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue  # ended meanwhile
        parent = int(stat.rpartition(")")[2].split()[1])
        children.setdefault(parent, []).append(int(entry))
    found: set[int] = set()
    waiting = [pid]
    while waiting:
        current = waiting.pop()
        if current not in found:
            found.add(current)
            waiting += children.get(current, [])
    return found


def find_by_id(root: Path, wanted: int) -> Path | None:
    """The directory with that id; None: the cgroup is gone."""
    for directory, _, _ in os.walk(root):
        try:
            if os.stat(directory).st_ino == wanted:
                return Path(directory)
        except FileNotFoundError:
            continue
    return None


def move(pid: int, directory: Path) -> None:
    """Move a process and its descendants into a cgroup; later children start in it."""
    for _ in range(_MOVE_ROUNDS_MAX):
        outside = descendants(pid) - members(directory)
        if not outside:
            return
        for member in sorted(outside):
            try:
                (directory / "cgroup.procs").write_text(str(member))
            except ProcessLookupError:
                continue
            except OSError:
                # /proc lists a dead child until it is reaped; a live one must be moved.
                if _is_alive(member):
                    raise


def _is_alive(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] not in ("Z", "X")
