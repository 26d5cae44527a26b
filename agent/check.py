"""`tulle check`: what has to be true for a node to work, each with a stable code; repairs nothing.

`local_checks` needs no agent (the CLI runs it before an installation); `node_checks` asks a running
one. A check that cannot be made is an error of its own, never a silent pass.
"""

from __future__ import annotations

import asyncio
import json
import os
import platform
import re
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any

import h11

from agent import config
from agent.datapath import bpffs, cgroups, node
from agent.datapath.errors import KernelError
from agent.direct.reasons import MEANINGS
from agent.enrol.plan import State
from agent.status import Node
from control.kit.errors import MeshError

KERNEL_MIN = (5, 15)  # sk_lookup 5.9, netns cookies in every hook we use 5.15
MAP_PRESSURE_WARNING = 0.8
INTENTS_AGE_WARNING_S = 60.0  # a restart of the control plane takes seconds
CERTIFICATE_LEFT_WARNING = timedelta(hours=6)  # renewed at half of 24 h: far behind by now
_BTF = Path("/sys/kernel/btf/vmlinux")
_FETCH_TIMEOUT_S = 5.0
_FETCH_BYTES_MAX = 64 * 1024 * 1024


class Result(StrEnum):
    OK = "ok"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Check:
    code: str
    category: str
    description: str
    result: Result = Result.OK
    error: str = ""
    hint: str = ""

    def as_json(self) -> dict[str, str]:
        return {**asdict(self), "result": self.result.value}


def _check(
    code: str,
    category: str,
    description: str,
    *,
    error: str = "",
    hint: str = "",
    level: Result = Result.ERROR,
) -> Check:
    """Passed when there is no error."""
    if not error:
        return Check(code, category, description)
    return Check(code, category, description, level, error, hint)


# Without an agent


def local_checks(
    cgroup_root: Path | None = None,
    mount_point: Path = config.DEFAULT_BPFFS,
    cache: Path = config.DEFAULT_CACHE,
) -> list[Check]:
    """Kernel, mounts and a dry load of every program. Loads, attaches nothing, blocks < 1 s."""
    return [
        kernel_version(platform.release()),
        _rights(),
        cgroup2(cgroup_root),
        _btf(),
        _bpffs(mount_point),
        *_programs(cache),
    ]


def kernel_version(release: str) -> Check:
    found = re.match(r"(\d+)\.(\d+)", release)
    version = (int(found[1]), int(found[2])) if found else (0, 0)
    wanted = ".".join(map(str, KERNEL_MIN))
    return _check(
        "TUL0101",
        "kernel",
        f"the kernel is {wanted} or newer",
        error="" if version >= KERNEL_MIN else f"this one is {release}",
        hint="upgrade the node's kernel; Ubuntu 22.04 and Debian 12 are new enough",
    )


def _rights() -> Check:
    return _check(
        "TUL0102",
        "kernel",
        "running as root",
        error="" if os.geteuid() == 0 else f"running as user {os.geteuid()}",
        hint="run as root, or with CAP_BPF, CAP_NET_ADMIN and CAP_SYS_ADMIN",
    )


def cgroup2(root: Path | None, mounts: str | None = None) -> Check:
    code, category, description = "TUL0201", "cgroup", "a cgroup2 file system is mounted"
    try:
        found = root or cgroups.find_root(mounts)
    except (KernelError, OSError) as exc:
        hint = "mount -t cgroup2 none /sys/fs/cgroup/unified, or boot with the unified hierarchy"
        return _check(code, category, description, error=str(exc), hint=hint)
    if not (found / "cgroup.procs").exists():
        hint = "name the mount point with --cgroup-root"
        return _check(code, category, description, error=f"{found} is none", hint=hint)
    return _check(code, category, f"{description} ({found})")


def _btf() -> Check:
    return _check(
        "TUL0301",
        "btf",
        "the kernel describes its types (BTF)",
        error="" if _BTF.exists() else f"no {_BTF}",
        hint="not needed by today's programs; bpftool shows less without it",
        level=Result.WARNING,
    )


def _bpffs(mount_point: Path) -> Check:
    return _check(
        "TUL0401",
        "bpffs",
        f"a BPF file system is mounted on {mount_point}",
        error="" if bpffs.is_bpffs(mount_point) else "it is not",
        hint=f"mount -t bpf bpf {mount_point} (the agent does it when it starts)",
        level=Result.WARNING,
    )


def _programs(cache: Path) -> Iterator[Check]:
    hint = "install python3-bpfcc; see the agent's log for the compiler's words"
    if os.geteuid() != 0:
        hint = "run as root: see TUL0102"
    try:
        loaded = node.dry_load(cache)
    except (KernelError, OSError) as exc:
        yield _check("TUL0501", "programs", "the eBPF programs compile", error=str(exc), hint=hint)
        return
    yield _check("TUL0501", "programs", "the eBPF programs compile")
    for program in loaded:
        yield _check(
            "TUL0502",
            "programs",
            f"the verifier accepts {program.name}",
            error="" if program.ok else program.verifier_tail,
            hint="report this with the kernel's version: the program must change, or be left out",
        )


# With an agent


async def node_checks(agent: Node) -> list[Check]:
    chosen = agent.config
    local = await asyncio.to_thread(local_checks, chosen.cgroup_root, chosen.bpffs, chosen.cache)
    return [
        *local,
        _conflicts(agent),
        *_tunnel(agent),
        _direct(agent),
        await _certificates(agent),
        *_control(agent),
        *map_pressure((usage.name, usage.used, usage.max) for usage in agent.datapath.usage()),
        _pods(agent),
    ]


def _conflicts(agent: Node) -> Check:
    code, category = "TUL0601", "hooks"
    description = "no other program changes connections on our hooks"
    try:
        foreign = [each for each in agent.datapath.conflicts() if not each.is_tulle]
    except (KernelError, OSError) as exc:
        return _check(code, category, description, error=str(exc), hint="run as root")
    names = ", ".join(f"{each.program_name or '?'} ({each.hook})" for each in foreign)
    return _check(
        code,
        category,
        description,
        error=names,
        hint="a CNI's socket load balancing must leave pods alone: for Cilium, "
        "socketLB.hostNamespaceOnly=true",
        level=Result.WARNING,
    )


def _tunnel(agent: Node) -> Iterator[Check]:
    count = len(agent.enroller.facts.tunnels)
    captured = len(agent.enroller.facts.book.report())
    yield _check(
        "TUL0701",
        "ztunnel",
        "a ztunnel is connected",
        error="" if count else f"none; {captured} captured pods have no network",
        hint=f"start tulle-ztunnel; it dials {agent.config.zds}",
    )


# Why there is no direct path → what to do about it; nothing is wrong when somebody chose so.
_CHOSEN = frozenset({"no_direct"})
_DIRECT_HINTS = {
    "no_ztunnel": "tulle's own ztunnel dials direct.sock beside zds.sock, Istio's does not",
    "flows_full": "more at once than one agent can follow: the rest goes through the tunnel",
}


def _direct(agent: Node) -> Check:
    status = agent.direct.status()
    reason = str(status["reason"])
    chosen = reason in _CHOSEN
    return _check(
        "TUL0703",
        "ztunnel",
        "connections inside this node may go direct" + (" (switched off)" if chosen else ""),
        error="" if chosen else MEANINGS.get(reason, reason),
        hint=_DIRECT_HINTS.get(reason, "they go through the tunnel meanwhile"),
        level=Result.WARNING,
    )


async def _certificates(agent: Node) -> Check:
    code, category = "TUL0702", "ztunnel"
    description = "workload certificates are valid and renewed in time"
    path = agent.config.folder / "ztunnel.sock"
    if not path.exists():
        return _check(
            code,
            category,
            description,
            error=f"no admin socket {path}",
            hint="only tulle's own ztunnel has one",
            level=Result.WARNING,
        )
    try:
        dump = await _fetch(path, "/config_dump")
        bad = list(certificates_in_trouble(dump, agent.clock.now()))
    except (OSError, ValueError, TypeError, KeyError, h11.ProtocolError, MeshError) as exc:
        hint = "look into the ztunnel's log"
        return _check(
            code, category, description, error=f"no certificates could be read: {exc}", hint=hint
        )
    hint = "look for certificate.failed in the ztunnel's log, and at the control plane's CA"
    return _check(code, category, description, error="; ".join(bad[:5]), hint=hint)


def certificates_in_trouble(dump: Any, now: datetime) -> Iterator[str]:
    for entry in dump.get("certificates", []):
        chain = entry.get("certChain") or []
        if not chain:
            if entry.get("state") not in (None, "Available", "Initializing"):
                yield f"{entry['identity']}: {entry['state']}"
            continue
        expires_at = datetime.fromisoformat(chain[0]["expirationTime"].replace("Z", "+00:00"))
        starts_at = datetime.fromisoformat(chain[0]["validFrom"].replace("Z", "+00:00"))
        left = expires_at - now
        if left <= timedelta(0):
            yield f"{entry['identity']}: expired {expires_at.isoformat()}"
        elif left < min(CERTIFICATE_LEFT_WARNING, (expires_at - starts_at) / 4):
            yield f"{entry['identity']}: expires {expires_at.isoformat()}, not renewed"


async def _fetch(path: Path, target: str) -> Any:
    """One GET over a unix socket, as JSON."""
    async with asyncio.timeout(_FETCH_TIMEOUT_S):
        reader, writer = await asyncio.open_unix_connection(str(path))
        try:
            client = h11.Connection(h11.CLIENT)
            head = [("host", "localhost"), ("connection", "close")]
            question = client.send(h11.Request(method="GET", target=target, headers=head))
            writer.write((question or b"") + (client.send(h11.EndOfMessage()) or b""))
            body = bytearray()
            while not isinstance(item := client.next_event(), h11.EndOfMessage):
                if item is h11.NEED_DATA:
                    client.receive_data(await reader.read(65536))
                elif isinstance(item, h11.Data):
                    body += item.data
                    if len(body) > _FETCH_BYTES_MAX:
                        raise ValueError("more than an admin page has")
                elif isinstance(item, h11.ConnectionClosed):
                    raise ValueError("no answer")
            return json.loads(body)
        finally:
            writer.close()


def _control(agent: Node) -> Iterator[Check]:
    connection = agent.intents.connection
    yield _check(
        "TUL0801",
        "control",
        f"the control plane answers ({connection.address})",
        error="" if connection.connected else connection.error or "not yet",
        hint="is tulle-control running, and are --control-root and --token right?",
    )
    age_s = agent.intents_age_s()
    stale = "" if age_s is None else f"{age_s:.0f} s old" if age_s > INTENTS_AGE_WARNING_S else ""
    yield _check(
        "TUL0802",
        "control",
        "what the control plane wants of this node's pods is fresh",
        error="never heard" if age_s is None else stale,
        hint="captured pods stay captured meanwhile; new ones cannot start",
        level=Result.ERROR if age_s is None else Result.WARNING,
    )


def map_pressure(usages: Iterable[tuple[str, int, int]]) -> Iterator[Check]:
    for name, used, limit in usages:
        full = limit > 0 and used >= limit * MAP_PRESSURE_WARNING
        yield _check(
            "TUL0901",
            "maps",
            f"the kernel table {name} has room",
            error=f"{used} of {limit}" if full else "",
            hint="a full pods table refuses enrolment, a full destinations table forgets",
            level=Result.ERROR if used >= limit else Result.WARNING,
        )


def _pods(agent: Node) -> Check:
    failed = [f"{uid}: {why}" for uid, state, why in agent.pod_states() if state is State.FAILED]
    return _check(
        "TUL1001",
        "pods",
        "every enrolled pod could be captured",
        error="; ".join(failed[:5]),
        hint="the agent tries again every 5 s; its log has pod.failed with the reason",
    )
