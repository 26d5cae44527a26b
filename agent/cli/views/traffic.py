"""Connections, and who pays for them, as rows. Pure."""

from __future__ import annotations

from datetime import datetime

from agent.cli.mesh import MeshDump
from agent.cli.views.moments import time_since
from agent.cli.views.pages import Filter, Row, ztunnels


def connection_rows(mesh: MeshDump, wanted: Filter, direction: str = "") -> list[Row]:
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
        "age": time_since(opened, now),
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


def tenant_rows(mesh: MeshDump) -> list[Row]:
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
