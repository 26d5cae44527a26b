"""Processes in namespaces and cgroups: starts, ends and recognises them by pid and start time.

A pid alone is never trusted: signals go through a pidfd whose start time was compared.
"""

from __future__ import annotations

import os
import pwd
import shlex
import signal
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from agent.lab.netns import NETNS_FOLDER
from control.kit.errors import KernelError

POLL_S = 0.02
TELL_EVERY_S = 2.0  # a longer silence looks like a hang
CGROUP_EMPTY_TIMEOUT_S = 3.0  # killed tasks leave at once, except from a stuck system call
_LAUNCHING = "TULLE_LAUNCHING"  # in the environment until the command itself is executed
_LAUNCH_SIGNALS = [signal.SIGPIPE, signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


@dataclass(frozen=True, slots=True)
class Process:
    pid: int
    start: int  # clock ticks after boot, as /proc/PID/stat has it


@dataclass(frozen=True, slots=True)
class Launch:
    """A command and its surroundings; `mounts`, `tmpfs` or `hostname` give it a mount namespace."""

    command: tuple[str, ...]
    netns: str
    cgroup: Path
    env: Mapping[str, str]
    workdir: str = "/"
    user: str = ""
    hostname: str = ""
    mounts: tuple[tuple[str, str], ...] = ()  # (source, target) bind mounts
    tmpfs: tuple[str, ...] = field(default=())


class Patience:
    """A bounded wait that reports every few seconds that it still waits."""

    def __init__(self, what: str, timeout_s: float, progress: Callable[[str], None]) -> None:
        self._what, self._progress = what, progress
        self._started = time.monotonic()
        self._deadline = self._started + timeout_s
        self._told = self._started

    def is_over(self) -> bool:
        """True when the time is up; call it between two tries."""
        now = time.monotonic()
        if now - self._told >= TELL_EVERY_S:
            self._told = now
            self._progress(f"still waiting for {self._what} ({now - self._started:.0f} s)")
        return now >= self._deadline


def script(launch: Launch) -> str:
    """Shell line that turns into the command, under the pid that was spawned."""
    steps = [f"mount --bind {_q(source)} {_q(target)}" for source, target in launch.mounts]
    steps += [f"mount -t tmpfs -o mode=1777 tmpfs {_q(target)}" for target in launch.tmpfs]
    if launch.hostname:
        steps.append(f"printf %s {_q(launch.hostname)} > /proc/sys/kernel/hostname")
    steps.append(f"cd {_q(launch.workdir)}")
    words = list(launch.command)
    if launch.user:
        group = pwd.getpwnam(launch.user).pw_gid
        user = f"--reuid={launch.user}", f"--regid={group}", "--init-groups"
        words = ["setpriv", *user, "--", *words]
    steps += [f"unset {_LAUNCHING}", "exec " + shlex.join(words)]
    inner = ["/bin/sh", "-c", " && ".join(steps)]
    if launch.mounts or launch.tmpfs or launch.hostname:
        inner = ["unshare", "--mount", "--uts", "--propagation", "slave", "--", *inner]
    enter = ["nsenter", f"--net={NETNS_FOLDER / launch.netns}", "--", *inner]
    procs = _q(str(launch.cgroup / "cgroup.procs"))
    return f"echo $$ > {procs} && exec {shlex.join(enter)}"


def spawn(launch: Launch, log: Path) -> Process:
    """Start a process in a session of its own; its output is appended to `log`."""
    launch.cgroup.mkdir(parents=True, exist_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    pid = os.posix_spawn(
        "/bin/sh",
        ["sh", "-c", script(launch)],
        {**launch.env, _LAUNCHING: "1"},
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(log), flags, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
            *((os.POSIX_SPAWN_CLOSE, each) for each in inherited()),
        ],
        setsid=True,
        setsigdef=_LAUNCH_SIGNALS,
    )
    return Process(pid, start_of(pid) or 0)


def inherited() -> list[int]:
    """Descriptors that our caller left open, such as a lock: a process that lives on would keep
    them for ever."""
    found = [int(name) for name in os.listdir("/proc/self/fd")]
    return [each for each in found if each > 2 and _is_inheritable(each)]


def _is_inheritable(descriptor: int) -> bool:
    try:
        return os.get_inheritable(descriptor)
    except OSError:  # that of the listing itself
        return False


def start_of(pid: int) -> int | None:
    """Start time of a process in clock ticks; None: it is gone or a zombie."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = text.rpartition(")")[2].split()
    if fields[0] in "ZX":
        _reap(pid)
        return None
    return int(fields[19])


def cgroup_of(process: Process) -> Path | None:
    """Folder of its cgroup; None: it is gone."""
    try:
        lines = Path(f"/proc/{process.pid}/cgroup").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return None
    for line in lines if alive(process) else ():
        if line.startswith("0::"):
            return cgroup2_root() / line.removeprefix("0::").lstrip("/")
    return None


def alive(process: Process) -> bool:
    return process.start != 0 and start_of(process.pid) == process.start


def launched(process: Process) -> bool:
    """True once the command itself runs, in the namespaces of its launch."""
    try:
        return _LAUNCHING.encode() not in Path(f"/proc/{process.pid}/environ").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return False


def send(process: Process, number: signal.Signals) -> bool:
    """Signal exactly this process; False: it is gone."""
    try:
        handle = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return False
    try:
        if not alive(process):
            return False
        signal.pidfd_send_signal(handle, number)
        return True
    except ProcessLookupError:
        return False
    finally:
        os.close(handle)


def stop(processes: Iterable[Process], grace_s: float) -> None:
    """Send SIGTERM to all, and SIGKILL to those that still live after the grace time."""
    living = [item for item in processes if send(item, signal.SIGTERM)]
    living = wait_gone(living, grace_s)
    for item in living:
        send(item, signal.SIGKILL)
    wait_gone(living, CGROUP_EMPTY_TIMEOUT_S)


def wait_gone(processes: list[Process], timeout_s: float) -> list[Process]:
    """Wait for processes to end; those that are left after the timeout."""
    deadline = time.monotonic() + timeout_s
    while processes := [item for item in processes if alive(item)]:
        if time.monotonic() >= deadline:
            break
        time.sleep(POLL_S)
    return processes


def in_namespaces(inodes: set[int]) -> list[Process]:
    """Every process in these network namespaces, which proves that a lab started it."""
    found = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            inode = os.stat(f"/proc/{entry}/ns/net").st_ino
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
        start = start_of(int(entry)) if inode in inodes else None
        if start is not None and int(entry) != os.getpid():
            found.append(Process(int(entry), start))
    return found


def cgroup2_root() -> Path:
    """Mount point of the cgroup2 tree (in hybrid systems not /sys/fs/cgroup)."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        head, _, tail = line.partition(" - ")
        if tail.startswith("cgroup2 "):
            return Path(head.split()[4])
    raise KernelError("no cgroup2 tree is mounted; try: mount -t cgroup2 none /sys/fs/cgroup")


def remove_cgroup(folder: Path) -> None:
    """Kill all processes in a cgroup and below it, then remove the cgroups."""
    deadline = time.monotonic() + CGROUP_EMPTY_TIMEOUT_S
    while folder.is_dir():
        for path in [*sorted(folder.rglob("*/"), reverse=True), folder]:
            kill_members(path)
            try:
                path.rmdir()
            except FileNotFoundError:
                pass
            except OSError as exc:
                if time.monotonic() >= deadline:
                    raise KernelError(f"cgroup {path} cannot be removed: {exc}") from exc
        if folder.is_dir():
            time.sleep(POLL_S)


def has_members(folder: Path) -> bool:
    """True when a process is in the cgroup or below it."""
    found = (path / "cgroup.procs" for path in [folder, *folder.rglob("*/")])
    return any(procs.exists() and procs.read_text() for procs in found)


def kill_members(cgroup: Path) -> None:
    """Send SIGKILL to every process in one cgroup."""
    try:
        for pid in (cgroup / "cgroup.procs").read_text().split():
            start = start_of(int(pid))
            if start is not None:
                send(Process(int(pid), start), signal.SIGKILL)
    except FileNotFoundError:
        return


def _reap(pid: int) -> None:
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        pass  # not our child


def _q(text: str) -> str:
    return shlex.quote(text)
