"""A process's directory in the cgroup2 tree that we see.

`/proc/PID/cgroup` speaks of the reader's own cgroup namespace: in a container it reads
`/../kubelet`, from where no way leads into the host's tree. Then the tree is searched for the
process itself, which needs no namespace at all.
"""

import os
from pathlib import Path

from agent.datapath import cgroups

PROCESSES = Path("/proc")
DIRECTORIES_MAX = 65536  # some seconds; a node of 500 pods has some 5,000


def directory_of(pid: int, root: Path, processes: Path = PROCESSES) -> Path | None:
    """None: not below `root`. OSError: the process is gone."""
    said = _said(pid, processes)
    parts = [part for part in said.split("/") if part]
    if ".." not in parts:
        found = root.joinpath(*parts)
        if _holds(found, pid):
            return found
    name = parts[-1] if parts and parts[-1] != ".." else ""
    return _searched(pid, root, name)


def _said(pid: int, processes: Path) -> str:
    # Names of directories have any bytes.
    text = (processes / str(pid) / "cgroup").read_text(errors="surrogateescape")
    for line in text.split("\n"):
        if line.startswith("0::"):
            return line.removeprefix("0::")
    return "/"


def _searched(pid: int, root: Path, name: str) -> Path | None:
    """`name`: that of the directory; empty where the kernel does not say it."""
    for count, (directory, _, _) in enumerate(os.walk(root)):
        if count >= DIRECTORIES_MAX:
            return None
        if (not name or os.path.basename(directory) == name) and _holds(Path(directory), pid):
            return Path(directory)
    return None


def _holds(directory: Path, pid: int) -> bool:
    try:
        return pid in cgroups.members(directory)
    except OSError:
        return False  # not there, or of a kind without processes of its own
