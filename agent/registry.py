"""Registry of pods' network namespaces: verifies them, remembers them across restarts.

A namespace is identified by its cookie, which the kernel never gives twice in one boot. A path or a
process is only a place to open it: pids and inode numbers are reused, so the cookie is checked each
time. No namespace is held open, because a descriptor would keep a deleted pod's network alive.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import logging
import os
import socket
import urllib.parse
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import psutil

from agent.datapath import netns
from agent.datapath.errors import DatapathError
from agent.datapath.host_root import HOST_ROOT, visible_namespace
from control.kit.errors import ConfigError, KernelError, MeshError
from control.kit.files import write_atomic
from control.kit.log import event
from control.model.address import Address, format_address, is_loopback, parse_address

log = logging.getLogger("registry")

_NS_GET_NSTYPE = 0xB703  # ioctl: the kind of namespace behind a descriptor
_CLONE_NEWNET = 0x40000000
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
# A Kubernetes uid has 36. As a file name, of 255 bytes at most, a byte may take three.
UID_BYTES_MAX = 80
PID_MAX = 2**22  # the kernel's own limit
# Errors that tell of us, and nothing about what we looked for.
_SHORTAGES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS})


class NamespaceRefused(ConfigError):
    """A namespace in a registration that cannot be a pod's."""

    reason: ClassVar[str] = "netns_refused"


class StateUnwritable(MeshError):
    """A full disk or worse: a registration that is not on it would not survive a restart."""

    reason: ClassVar[str] = "state_unwritable"


class NamespaceGone(MeshError):
    """A namespace that existed when the pod was registered, and does not any more."""

    reason: ClassVar[str] = "netns_gone"


@dataclass(frozen=True, slots=True)
class Registration:
    uid: str
    namespace: str
    name: str
    netns: str  # a path: /run/netns/x, or /proc/<pid>/ns/net
    inode: int
    cookie: int
    service_account: str = ""
    addresses: tuple[Address, ...] = ()
    container_id: str = ""  # the sandbox that CNI made the namespace for; empty: not told
    # The runtime named the addresses. They count more than the control plane's, which are those of
    # the sandbox before while a new one is made.
    is_placed: bool = False
    # Its capture ended then, on the monotonic clock, which goes on for as long as the boot; 0: it
    # is captured, or never was.
    released_s: float = 0.0
    held_until_s: float = 0.0  # none of its connections goes direct before then, by that clock


def path_of_pid(pid: int) -> str:
    if pid > PID_MAX or not psutil.pid_exists(pid):
        raise NamespaceRefused(f"no process {pid}")
    return f"/proc/{pid}/ns/net"


@contextlib.contextmanager
def opened(path: str) -> Iterator[int]:
    """Open a pod's namespace; NamespaceRefused unless it is a network namespace of its own.
    DatapathError: it could not be looked at."""
    try:
        # Checked before it is opened: opening a device or a pipe can have effects.
        if os.stat(path).st_dev != os.stat("/proc/self/ns/net").st_dev:
            raise NamespaceRefused(f"{path} is not a namespace")
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as exc:
        if exc.errno in _SHORTAGES:
            raise DatapathError(f"open {path}", exc.errno) from exc
        raise NamespaceRefused(f"open {path}: {exc.strerror}") from exc
    try:
        try:
            kind = fcntl.ioctl(handle, _NS_GET_NSTYPE)
        except OSError as exc:
            raise NamespaceRefused(f"{path} is not a namespace") from exc
        if kind != _CLONE_NEWNET:
            raise NamespaceRefused(f"{path} is not a network namespace")
        found = os.fstat(handle)
        if (found.st_dev, found.st_ino) in _foreign_to_pods():
            raise NamespaceRefused(f"{path} is the network namespace of the host or the agent")
        yield handle
    finally:
        os.close(handle)


def _foreign_to_pods() -> set[tuple[int, int]]:
    found = set()
    for process in ("self", "1"):
        try:
            own = os.stat(f"/proc/{process}/ns/net")
        except PermissionError:
            continue  # we may not see the host's first process; ourselves we do
        found.add((own.st_dev, own.st_ino))
    return found


def cookie_of(netns_fd: int) -> int:
    with netns.inside(netns_fd), socket.socket(socket.AF_UNIX) as probe:
        return netns.cookie_of_socket(probe.fileno())


def inode_of(netns_fd: int) -> int:
    return os.fstat(netns_fd).st_ino


def addresses_inside(netns_fd: int) -> tuple[Address, ...]:
    """The first address of each family that other hosts can reach, IPv4 before IPv6."""
    with netns.inside(netns_fd):
        interfaces = psutil.net_if_addrs()
    found: dict[int, Address] = {}
    for entries in interfaces.values():
        for entry in entries:
            if entry.family not in (socket.AF_INET, socket.AF_INET6) or "%" in entry.address:
                continue  # not an IP address, or link-local
            address = parse_address(entry.address)
            if not is_loopback(address):
                found.setdefault(len(address), address)
    return one_of_each_family(tuple(found.values()))


def inspected(
    uid: str,
    namespace: str,
    name: str,
    path: str,
    *,
    container_id: str = "",
    addresses: tuple[Address, ...] = (),
) -> Registration:
    """The registration of the pod whose namespace is at `path`, looked at now.

    `addresses`: those that the runtime names; without any, those that are found inside.
    """
    path = visible_namespace(path)
    with opened(path) as handle:
        return Registration(
            uid=uid,
            namespace=namespace,
            name=name,
            netns=path,
            inode=inode_of(handle),
            cookie=cookie_of(handle),
            addresses=addresses or addresses_inside(handle),
            container_id=container_id,
            is_placed=bool(addresses),
        )


def one_of_each_family(addresses: tuple[Address, ...]) -> tuple[Address, ...]:
    """The first IPv4 address, then the first IPv6 one: as many as the kernel half can capture."""
    first: dict[int, Address] = {}
    for address in addresses:
        first.setdefault(len(address), address)
    return tuple(first[length] for length in sorted(first))


@contextlib.contextmanager
def opened_again(registration: Registration) -> Iterator[int]:
    """Open the namespace that was registered, and no other; NamespaceGone if it is gone."""
    try:
        with opened(registration.netns) as handle:
            if cookie_of(handle) != registration.cookie:
                raise NamespaceGone(f"another namespace is at {registration.netns}")
            yield handle
    except NamespaceRefused as exc:
        raise NamespaceGone(str(exc)) from exc


def is_there(registration: Registration) -> bool:
    """True while the namespace is where it was registered, and when we cannot look: no pod is taken
    down on a guess."""
    return stamp(registration, None) is not None


# A namespace's file: its inode, and when it was made. Inodes are reused; no two files have both.
Stamp = tuple[int, int]
UNSEEN: Stamp = (0, 0)  # there, as far as we can tell, and not to be relied on


def stamp(registration: Registration, seen: Stamp | None) -> Stamp | None:
    """The namespace's file where it was registered, None: it is gone. `seen`: the answer of an
    earlier call, which spares the look inside while the file is the same."""
    try:
        found = os.stat(registration.netns)
        if found.st_ino != registration.inode:
            return None
        now = (found.st_ino, found.st_ctime_ns)
        if now == seen:
            return now
        with opened_again(registration):
            return now
    except KernelError:
        return UNSEEN
    except NamespaceGone:
        return None
    except OSError as exc:
        return UNSEEN if exc.errno in _SHORTAGES else None


def find(cookies: set[int]) -> dict[int, tuple[str, int]]:
    """Search named namespaces and those of all processes for cookies; cookie → (path, inode).

    Takes some milliseconds. Namespaces that are nowhere are left out. DatapathError, OSError: we
    have no means to look, and what is not found may be there.
    """
    found: dict[int, tuple[str, int]] = {}
    seen: set[int] = set()
    folders = ("/run/netns", f"{HOST_ROOT}/run/netns")
    named = [f"{folder}/{name}" for folder in folders for name in _names_in(folder)]
    for path in [*named, *(f"/proc/{pid}/ns/net" for pid in psutil.pids())]:
        try:
            inode = os.stat(path).st_ino
            if inode in seen:
                continue
            seen.add(inode)
            with opened(path) as handle:
                cookie = cookie_of(handle)
        except (OSError, MeshError) as exc:
            if _is_shortage(exc):
                raise
            continue
        if cookie in cookies:
            found[cookie] = (path, inode)
    return found


def _is_shortage(error: OSError | MeshError) -> bool:
    number = error.number if isinstance(error, DatapathError) else getattr(error, "errno", 0)
    return number in _SHORTAGES


def _names_in(folder: str) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError as exc:
        if _is_shortage(exc):
            raise
        return []  # there is none, or we may not look


def record_bytes(registration: Registration, boot_id: str) -> bytes:
    """The registration as its file has it."""
    addresses = [format_address(each) for each in registration.addresses]
    record = {**asdict(registration), "addresses": addresses, "boot_id": boot_id}
    for name in ("released_s", "held_until_s"):
        if not record[name]:
            del record[name]  # an older agent knows no such field
    return json.dumps(record, indent=1).encode()


def parse_record(data: bytes, boot_id: str) -> Registration | None:
    """A registration from its file; None if it is from before the last boot.

    ValueError for anything else.
    """
    try:
        record: Any = json.loads(data)
        written = record.pop("boot_id")
        record["addresses"] = tuple(map(parse_address, record["addresses"]))
        found = Registration(**record)
    except (TypeError, KeyError, AttributeError, RecursionError) as exc:
        raise ValueError(f"not a registration: {exc!r}") from exc
    named = (found.uid, found.namespace, found.name, found.service_account, found.container_id)
    if not all(isinstance(each, str) for each in (*named, found.netns, written)):
        raise ValueError("a field that should be text is not")
    if not all(type(each) is int for each in (found.inode, found.cookie)) or not found.uid:
        raise ValueError("a field that should be a number is not, or the uid is empty")
    if type(found.released_s) is not float or type(found.held_until_s) is not float:
        raise ValueError("a time that should be a number is not")
    if not isinstance(found.is_placed, bool):
        raise ValueError("a field that should be true or false is not")
    return found if written == boot_id else None


class Registry:
    """One JSON file per pod; those from before the last boot are void."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._boot_id = _BOOT_ID.read_text().strip()
        self._known: dict[str, Registration] = {}
        self._unsaved: set[str] = set()  # uids whose file is out of date

    def load(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for scratch in self._folder.glob(".*.json.*"):
            _unlink(scratch)  # from a write that a crash cut short
        for path in sorted(self._folder.glob("*.json")):
            try:
                found = parse_record(path.read_bytes(), self._boot_id)
                if found is not None and self._path(found.uid) != path:
                    raise ValueError(f"it is about {found.uid!r}")
            except (ValueError, OSError) as exc:
                # If it is captured it is found again by its namespace, see `find`.
                event(log, logging.WARNING, "registration.unreadable", path=path, error=exc)
                found = None
            if found is None:
                _unlink(path)
            else:
                self._known[found.uid] = found

    def __iter__(self) -> Iterator[Registration]:
        return iter(list(self._known.values()))

    def get(self, uid: str) -> Registration | None:
        return self._known.get(uid)

    def put(self, registration: Registration) -> None:
        """Add or replace a registration, on disk too; StateUnwritable: nothing has changed."""
        uid = registration.uid
        if self._known.get(uid) == registration and uid not in self._unsaved:
            return
        try:
            record = record_bytes(registration, self._boot_id)
            # Not synced: after a crash of the host it would be void, and syncing stops the loop.
            write_atomic(self._path(uid), record, 0o600, sync=False)
        except OSError as exc:
            raise StateUnwritable(f"{self._folder}: {exc.strerror}") from exc
        self._known[uid] = registration
        self._unsaved.discard(uid)

    def learn(self, registration: Registration) -> None:
        """Add or replace a registration at once, and on disk when possible; see `save`."""
        try:
            self.put(registration)
        except StateUnwritable as exc:
            event(log, logging.ERROR, "registration.unsaved", uid=registration.uid, error=exc)
            self._known[registration.uid] = registration
            self._unsaved.add(registration.uid)

    def save(self) -> None:
        """Try again to write what could not be written."""
        for uid in sorted(self._unsaved):
            try:
                self.put(self._known[uid])
            except StateUnwritable:
                return  # logged when it began
            event(log, logging.INFO, "registration.saved", uid=uid)

    def remove(self, uid: str) -> None:
        if self._known.pop(uid, None) is not None:
            self._unsaved.discard(uid)
            _unlink(self._path(uid))

    def _path(self, uid: str) -> Path:
        return self._folder / f"{urllib.parse.quote(uid, safe='')}.json"


def _unlink(path: Path) -> None:
    """Remove a file. If it stays (a read-only disk) the next start finds its namespace gone."""
    try:
        path.unlink(missing_ok=True)
    except OSError as exc:
        event(log, logging.WARNING, "registration.file_kept", path=path, error=exc)
