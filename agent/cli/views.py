"""The mesh's pages as rows for each command. Pure."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from agent.cli import made_policies
from agent.cli.made_policies import PEER_AUTHENTICATION
from agent.cli.mesh import MeshDump
from agent.cli.selector import Requirement

MODE_LABELS = ("tulle.io/dataplane-mode", "istio.io/dataplane-mode")

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Filter:
    namespace: str = ""  # empty: all
    labels: tuple[Requirement, ...] = ()  # all must hold
    name: str = ""

    def admits(self, mesh: MeshDump, row: Row) -> bool:
        if self.namespace and row.get("namespace") != self.namespace:
            return False
        if self.name and row.get("name") != self.name:
            return False
        known = (mesh.labels.get("pod") or {}).get(f"{row.get('namespace')}/{row.get('name')}", {})
        return all(one.holds(known) for one in self.labels)


def ztunnels(mesh: MeshDump) -> Iterator[tuple[str, Row]]:
    for node, parts in sorted(mesh.nodes.items()):
        if parts.get("ztunnel"):
            yield node, parts["ztunnel"]


def namespace_names(mesh: MeshDump) -> set[str]:
    """Every namespace that a page, a label or an object of this mesh names."""
    found = set(mesh.labels.get("namespace") or {})
    pages = [mesh.control, *(dump for _, dump in ztunnels(mesh))]
    pages += [{"pods": [pod for _, pod in agent_pods(mesh)]}]
    for page in pages:
        for kind in ("pods", "workloads", "services", "policies"):
            found |= {str(item.get("namespace") or "") for item in page.get(kind) or []}
    return found - {""}


def agent_pods(mesh: MeshDump) -> Iterator[tuple[str, Row]]:
    for node, parts in sorted(mesh.nodes.items()):
        for pod in (parts.get("agent") or {}).get("pods") or []:
            yield node, pod


def workloads(mesh: MeshDump, wanted: Filter) -> list[Row]:
    """Each workload that a ztunnel knows, once; the control plane's when no ztunnel answers."""
    since = {
        (pod["namespace"], pod["name"]): _to_the_second(pod.get("since"))
        for _, pod in agent_pods(mesh)
        if pod.get("state") == "captured"
    }
    found: dict[str, Row] = {}
    for _, dump in ztunnels(mesh):
        for item in dump.get("workloads") or []:
            found.setdefault(item["uid"], _workload(item))
    if not found:
        for item in mesh.control.get("workloads") or []:
            found.setdefault(item["uid"], _control_workload(item))
    for row in found.values():
        row["captured_since"] = since.get((row["namespace"], row["name"]))
    return in_order(row for row in found.values() if wanted.admits(mesh, row))


def _workload(item: Row) -> Row:
    domain, namespace = item.get("trustDomain", "cluster.local"), item.get("namespace", "")
    return {
        "namespace": namespace,
        "name": item.get("name", ""),
        "node": item.get("node", ""),
        "addresses": item.get("workloadIps") or [],
        "identity": f"spiffe://{domain}/ns/{namespace}/sa/{item.get('serviceAccount', '')}",
        "protocol": item.get("protocol", ""),
        "status": item.get("status", ""),
        "services": item.get("services") or [],
        "uid": item["uid"],
    }


def _control_workload(item: Row) -> Row:
    keys = ("namespace", "name", "node", "addresses", "identity", "protocol", "services", "uid")
    return {**{key: item.get(key) for key in keys}, "status": str(item.get("status")).capitalize()}


def services(mesh: MeshDump, wanted: Filter) -> list[Row]:
    found: dict[tuple[str, str], Row] = {}
    for _, dump in ztunnels(mesh):
        for item in dump.get("services") or []:
            endpoints = item.get("endpoints") or {}
            each = list(endpoints.values() if isinstance(endpoints, dict) else endpoints)
            healthy = sum(1 for one in each if one.get("status", "Healthy") == "Healthy")
            found.setdefault(
                (item["namespace"], item["hostname"]),
                {
                    "namespace": item["namespace"],
                    "name": item["name"],
                    "addresses": [
                        str(vip).rpartition("/")[2]
                        for vip in (*(item.get("vips") or ()), *(item.get("outerAddresses") or ()))
                    ],
                    "ports": sorted(int(port) for port in item.get("ports") or {}),
                    "endpoints": f"{healthy}/{len(each)}",
                    "hostname": item["hostname"],
                },
            )
    if not found:
        for item in mesh.control.get("services") or []:
            row = {key: item.get(key) for key in ("namespace", "name", "addresses", "hostname")}
            outer = [each["address"] for each in item.get("outer_addresses") or []]
            row["addresses"] = [*(item.get("addresses") or []), *outer]
            row["ports"] = [port["port"] for port in item.get("ports") or []]
            found[(item["namespace"], item["hostname"])] = row
    return in_order(row for row in found.values() if wanted.admits(mesh, row))


def policies(mesh: MeshDump, wanted: Filter) -> list[Row]:
    """Each policy that a ztunnel has, once; the control plane's when no ztunnel answers. What was
    made of PeerAuthentications is shown as these."""
    known = [item for item in mesh.control.get("policies") or [] if item.get("delivered", True)]
    told = [_policy(item) for item in known]
    peers = [row for row in told if row["kind"] == PEER_AUTHENTICATION]
    held = [_policy(item) for _, dump in ztunnels(mesh) for item in dump.get("policies") or []]
    if peers:
        held = [row for row in held if row["kind"] != PEER_AUTHENTICATION] + peers
    found: dict[tuple[str, str, str], Row] = {}
    for row in held or told:
        found.setdefault((row["kind"], row["namespace"], row["name"]), row)
    return in_order(row for row in found.values() if wanted.admits(mesh, row))


def _policy(item: Row) -> Row:
    rules, name = item.get("rules"), str(item.get("name") or "")
    made_of = made_policies.name_of(name)
    kind = PEER_AUTHENTICATION if made_of else str(item.get("kind") or "AuthorizationPolicy")
    return {
        "kind": kind,
        "namespace": str(item.get("namespace") or ""),
        "name": made_of or name,
        "action": _word(item.get("action")),
        "scope": _word(item.get("scope")),
        "rules": len(rules) if isinstance(rules, list) else rules,
    }


def _word(value: Any) -> str:
    """The ztunnel's way to write a constant: the control plane says WORKLOAD_SELECTOR."""
    text = str(value or "")
    return "".join(map(str.capitalize, text.split("_"))) if text.isupper() else text


def certificates(mesh: MeshDump, wanted: Filter) -> list[Row]:
    """Leaves of each node by identity, then each root once; roots belong to no namespace."""
    rows: list[Row] = []
    roots: dict[str, Row] = {}
    for node, dump in ztunnels(mesh):
        for item in dump.get("certificates") or []:
            identity = str(item.get("identity") or "")
            base = {"name": identity, "namespace": _namespace_of(identity), "node": node}
            base["status"] = item.get("state", "")
            chain = item.get("certChain") or []
            if not chain:
                rows.append({**base, "type": "leaf", "valid": False})
            for index, one in enumerate(chain):
                kind = "leaf" if index == 0 else "intermediate"
                rows.append({**base, "type": kind, **_validity(one, mesh.taken_at)})
            for one in item.get("rootCerts") or []:
                validity = _validity(one, mesh.taken_at)
                name = {"name": "(root)", "namespace": "", "node": "", "status": "Available"}
                roots[str(validity["serial"])] = {**name, "type": "root", **validity}
    leaves = [row for row in rows if wanted.namespace in ("", row["namespace"])]
    leaves.sort(key=lambda row: (row["name"], row["node"]))
    return leaves if wanted.namespace else leaves + list(roots.values())


def _namespace_of(identity: str) -> str:
    """The namespace of spiffe://DOMAIN/ns/NAMESPACE/sa/ACCOUNT."""
    parts = identity.split("/")
    return parts[4] if len(parts) > 5 and parts[3] == "ns" else ""


def _validity(item: Row, now: datetime) -> Row:
    start, end = item.get("validFrom"), item.get("expirationTime")
    valid = bool(start and end) and _moment(str(start)) <= now < _moment(str(end))
    number = item.get("serialNumber")
    return {
        "valid": valid,
        "serial": format(int(str(number)), "x") if str(number).isdigit() else number,
        "not_before": start,
        "not_after": end,
        "ends_in": _duration((_moment(str(end)) - now).total_seconds()) if end else None,
        "pem": _pem(item.get("pem")),
    }


def _pem(text: object) -> str | None:
    try:
        return base64.b64decode(str(text)).decode("ascii") if text else None
    except (binascii.Error, ValueError):
        return str(text)


def connections(mesh: MeshDump, wanted: Filter, direction: str = "") -> list[Row]:
    """One row for each side of a connection that a ztunnel holds."""
    sides = [direction] if direction else ["inbound", "outbound"]
    rows: list[Row] = []
    for node, dump in ztunnels(mesh):
        for state in (dump.get("workloadState") or {}).values():
            info, held = state.get("info") or {}, state.get("connections") or {}
            owner = {"namespace": info.get("namespace", ""), "name": info.get("name", "")}
            if wanted.admits(mesh, owner):
                rows += [
                    {**owner, **_connection(item, side, node, mesh.taken_at)}
                    for side in sides
                    for item in held.get(side) or []
                ]
    return sorted(rows, key=lambda row: (row["namespace"], row["name"], row["opened_at"] or ""))


def tenants(mesh: MeshDump) -> list[Row]:
    """A row for each tenant that a node's ztunnel tells of, in its order."""
    return [
        {
            "node": node,
            "kind": str(item.get("kind") or ""),
            "name": str(item.get("name") or ""),
            "cpu_s": _count(item, "cpuMs") / 1000,
            "connections": _count(item, "connections"),
            "tunnels": _count(item, "tunnels"),
            "queued": _count(item, "queuedBytes"),
            "refused": _count(item, "refused"),
            "idle_tunnels": _count(item, "idleTunnels"),
            "handshakes": _count(item, "handshakes"),
            "label_sets": _count(item, "labelSets"),
            "owes_ms": _count(item, "owesMs"),
        }
        for node, dump in ztunnels(mesh)
        for item in dump.get("tenants") or []
    ]


def _count(item: Row, name: str) -> int:
    return int(item.get(name) or 0)


def has_ztunnel(mesh: MeshDump, wanted: Filter) -> bool:
    """True when a ztunnel serves such a pod."""
    return any(
        wanted.admits(mesh, state.get("info") or {})
        for _, dump in ztunnels(mesh)
        for state in (dump.get("workloadState") or {}).values()
    )


def _connection(item: Row, side: str, node: str, now: datetime) -> Row:
    opened = item.get("openedAt")
    sent, received = int(item.get("bytesSent") or 0), int(item.get("bytesReceived") or 0)
    return {
        "direction": side,
        "src": item.get("sourceWorkload") or item.get("src"),
        "dst": item.get("destinationWorkload") or item.get("actualDst"),
        "orig_dst": item.get("originalDst"),
        "src_id": item.get("sourceIdentity"),
        "dst_id": item.get("destinationIdentity"),
        "protocol": item.get("protocol"),
        "path": _path(item),
        "age": _age(opened, now),
        "bytes": sent + received,
        "policy": item.get("policy"),
        "service": item.get("service"),
        "src_address": item.get("src"),
        "actual_dst": item.get("actualDst"),
        "bytes_sent": sent,
        "bytes_received": received,
        "opened_at": opened,
        "node": node,
        "worker": item.get("worker"),
    }


def _path(item: Row) -> str:
    """Path of a connection: the kernel alone, a tunnel, or plain TCP from the ztunnel."""
    path = str(item.get("path") or "")
    if path in ("direct", "hbone", "tcp"):
        return path
    return "hbone" if item.get("protocol") == "HBONE" else "tcp"


def maps(mesh: MeshDump) -> list[Row]:
    """Every kernel table and ring of every node, the fullest first."""
    rows: list[Row] = []
    for node, parts in sorted(mesh.nodes.items()):
        for item in (parts.get("agent") or {}).get("maps") or []:
            used, limit = int(item.get("used") or 0), int(item.get("max") or 0)
            share = round(100 * used / limit, 1) if limit else 0.0
            rows.append(
                {
                    "name": item["name"],
                    "node": node,
                    "used": used,
                    "max": limit,
                    "percent": share,
                    "drops": int(item.get("drops") or 0),
                }
            )
    return sorted(rows, key=lambda row: (row["node"], -row["percent"], row["name"]))


def namespaces(mesh: MeshDump) -> list[Row]:
    labels = mesh.labels.get("namespace") or {}
    rows = {name: _namespace(name, mode(found)) for name, found in labels.items()}
    agents: dict[tuple[str, str], Row] = {}
    for _, pod in agent_pods(mesh):
        agents[(pod["namespace"], pod["name"])] = pod
    control = {(pod["namespace"], pod["name"]): pod for pod in mesh.control.get("pods") or []}
    for key in sorted(agents.keys() | control.keys()):
        row = rows.setdefault(key[0], _namespace(key[0], "unknown"))
        row["pods"] += 1
        pod = agents.get(key) or {}
        row["captured"] += pod.get("state") == "captured"
        row["uncaptured_connections"] += pod.get("uncaptured_connections") or 0
    for policy in policies(mesh, Filter()):
        if policy["namespace"] in rows:
            rows[policy["namespace"]]["policies"] += 1
    return [rows[name] for name in sorted(rows)]


def _namespace(name: str, how: str) -> Row:
    counts = ("pods", "captured", "uncaptured_connections", "policies")
    return {"name": name, "mode": how, **dict.fromkeys(counts, 0)}


def mode(labels: Mapping[str, str]) -> str:
    """The mode that the control plane applies: `none` under either label wins."""
    values = [str(labels[key]) for key in MODE_LABELS if key in labels]
    known = [mode for mode in ("none", "ambient") if mode in values]
    return (known or values or ["none"])[0]


def in_order(rows: Iterable[Row]) -> list[Row]:
    return sorted(rows, key=lambda row: (row.get("namespace") or "", row.get("name") or ""))


def _to_the_second(text: str | None) -> str | None:
    return _moment(text).strftime("%Y-%m-%dT%H:%M:%SZ") if text else None


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


def age(mesh: MeshDump, text: str | None) -> str | None:
    """Time that had passed since the moment `text` when the pages were read."""
    return _age(text, mesh.taken_at)


def _age(text: str | None, now: datetime) -> str | None:
    return _duration((now - _moment(text)).total_seconds()) if text else None


def _duration(seconds: float) -> str:
    """Two parts at most: 3s, 4m10s, 2h5m, 3d4h."""
    if seconds < 0:
        return "-" + _duration(-seconds)
    total = int(seconds)
    for unit, size, lower, lower_size in (
        ("d", 86400, "h", 3600),
        ("h", 3600, "m", 60),
        ("m", 60, "s", 1),
    ):
        if total >= size:
            rest = total % size // lower_size
            return f"{total // size}{unit}" + (f"{rest}{lower}" if rest else "")
    return f"{total}s"
