"""Pod sandboxes as a container runtime describes them; reads its answers, asks nothing.

A pod may have several: the one that is ready counts, and of two ready ones the younger.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from agent.cri import runtime_pb2 as pb
from control.model.address import Address, parse_address

# A node has some hundred pods, of which the runtime keeps dead sandboxes for a while.
SANDBOXES_MAX = 4096
_PATH_CHARS_MAX = 4096


@dataclass(frozen=True, slots=True)
class Sandbox:
    """One line of the runtime's list."""

    id: str
    uid: str
    namespace: str
    name: str
    is_ready: bool
    created_ns: int


@dataclass(frozen=True, slots=True)
class SandboxNetwork:
    """The network of a sandbox. `paths`: where its namespace may be opened, the best first."""

    sandbox: Sandbox
    paths: tuple[str, ...]
    addresses: tuple[Address, ...]
    is_host_network: bool


def parse_list(response: pb.ListPodSandboxResponse) -> list[Sandbox]:
    """Every sandbox that belongs to a pod, up to SANDBOXES_MAX."""
    found = [
        _sandbox(each.id, each.metadata, each.state, each.created_at)
        for each in response.items[:SANDBOXES_MAX]
    ]
    return [each for each in found if each.id and each.uid]


def _sandbox(
    sandbox_id: str, metadata: pb.PodSandboxMetadata, state: int, created_ns: int
) -> Sandbox:
    return Sandbox(
        id=sandbox_id,
        uid=metadata.uid,
        namespace=metadata.namespace,
        name=metadata.name,
        is_ready=state == pb.SANDBOX_READY,
        created_ns=created_ns,
    )


def current(listed: Iterable[Sandbox]) -> dict[str, Sandbox]:
    """uid → its ready sandbox; a pod without one is left out."""
    found: dict[str, Sandbox] = {}
    for each in listed:
        if not each.is_ready:
            continue
        known = found.get(each.uid)
        if known is None or known.created_ns < each.created_ns:
            found[each.uid] = each
    return found


def parse_status(response: pb.PodSandboxStatusResponse) -> SandboxNetwork:
    """The place of a sandbox; texts of the runtime that cannot be read count as absent."""
    status = response.status
    network = status.linux.namespaces.options.network
    texts = [status.network.ip, *(each.ip for each in status.network.additional_ips)]
    return SandboxNetwork(
        sandbox=_sandbox(status.id, status.metadata, status.state, status.created_at),
        paths=_paths(_info(response.info)),
        addresses=tuple(filter(None, map(_address, texts))),
        is_host_network=network == pb.NODE,
    )


def _address(text: str) -> Address | None:
    try:
        return parse_address(text)
    except ValueError:
        return None


def _info(texts: Mapping[str, str]) -> dict[str, Any]:
    """The runtime's own account: containerd and CRI-O put one JSON object under `info`."""
    try:
        record = json.loads(texts.get("info", ""))
    except (ValueError, RecursionError):
        return {}
    return record if isinstance(record, dict) else {}


def _paths(info: dict[str, Any]) -> tuple[str, ...]:
    """By its name first, which outlives its processes; then by the sandbox's process."""
    found = []
    for each in _list(_dict(_dict(info, "runtimeSpec"), "linux"), "namespaces"):
        if isinstance(each, dict) and each.get("type") == "network":
            path = each.get("path")
            if isinstance(path, str) and path.startswith("/") and path.isprintable():
                found.append(path[:_PATH_CHARS_MAX])
    pid = info.get("pid")
    if type(pid) is int and pid > 0:
        found.append(f"/proc/{pid}/ns/net")
    return tuple(found)


def _dict(record: dict[str, Any], field: str) -> dict[str, Any]:
    value = record.get(field)
    return value if isinstance(value, dict) else {}


def _list(record: dict[str, Any], field: str) -> list[Any]:
    value = record.get(field)
    return value if isinstance(value, list) else []


def living(response: pb.ListContainersResponse) -> tuple[set[str], set[str]]:
    """Ids of sandboxes with a container that lives or may live, and of those with any at all."""
    alive, all_of_them = set(), set()
    for each in response.containers:
        all_of_them.add(each.pod_sandbox_id)
        if each.state != pb.CONTAINER_EXITED:
            alive.add(each.pod_sandbox_id)
    return alive, all_of_them
