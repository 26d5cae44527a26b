"""The cgroup2 tree: finds it, identifies directories, moves processes; attaches no program."""

import ctypes
import os
import sys
from pathlib import Path

from agent.datapath.errors import NoCgroup2

# Children that fork while they are moved are found in the next round; ten rounds outlast any
# start-up, and a fork bomb must not hold the agent.
_MOVE_ROUNDS_MAX = 10
_CLONE_NEWCGROUP = 0x02000000
_libc = ctypes.CDLL(None, use_errno=True)


def find_root(mountinfo: str | None = None) -> Path:
    """The cgroup2 mount that shows most of the tree: /sys/fs/cgroup when pure, …/unified when
    hybrid. In a container the host's mount may stand beside one of the container's own part.
    """
    if mountinfo is None:
        mountinfo = _proc_text(Path("/proc/self/mountinfo"))
    found = _mounts(mountinfo)
    if not found:
        raise NoCgroup2("no cgroup2 file system is mounted")
    return Path(min(found, key=lambda mount_point: _depth(found[mount_point])))


def is_whole(root: Path, mountinfo: str | None = None) -> bool:
    """False if that mount shows a part of the tree, as a container's own does."""
    if mountinfo is None:
        mountinfo = _proc_text(Path("/proc/self/mountinfo"))
    return _depth(_mounts(mountinfo).get(str(root), "/")) <= 0


def _proc_text(path: Path) -> str:
    """Every process chooses its own name, and whoever mounts a path, of any bytes."""
    return path.read_text(encoding="utf-8", errors="surrogateescape")


def _mounts(mountinfo: str) -> dict[str, str]:
    """Mount point → the part of the tree that is mounted there last, which hides the others."""
    found = {}
    for line in mountinfo.splitlines():
        fields, _, kind = line.partition(" - ")
        part, mount_point = (fields.split() + [""] * 5)[3:5]
        if kind.split(" ")[0] == "cgroup2":
            found[_unescaped(mount_point)] = _unescaped(part)
    return found


def _unescaped(text: str) -> str:
    return text.encode().decode("unicode_escape")  # \040 is a blank


def _depth(part: str) -> int:
    """Directories below the top of our cgroup namespace; `/..` lies above it."""
    return sum(-1 if each == ".." else 1 for each in part.split("/") if each)


def enter_host_namespace(processes: Path = Path("/proc")) -> bool:
    """Read all paths of /proc/PID/cgroup from the host's top, as its first process does.

    False: we may not, or it is not visible; then other containers' paths begin with `/..`.
    """
    try:
        with open(processes / "1" / "ns" / "cgroup", "rb") as handle:
            return int(_libc.setns(handle.fileno(), _CLONE_NEWCGROUP)) == 0
    except OSError:
        return False


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
            stat = _proc_text(processes / entry / "stat")
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
        stat = _proc_text(Path(f"/proc/{pid}/stat"))
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] not in ("Z", "X")


def started_ticks(pid: int, processes: Path = Path("/proc")) -> int:
    """The process's start, in the kernel's ticks since boot; one that is not visible starts now."""
    try:
        return int(_proc_text(processes / str(pid) / "stat").rpartition(")")[2].split()[19])
    except (OSError, IndexError, ValueError):
        return sys.maxsize
