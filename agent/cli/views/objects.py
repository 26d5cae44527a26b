"""Workloads, services and policies as rows. Pure."""

from __future__ import annotations

from typing import Any

from agent.cli import made_policies
from agent.cli.made_policies import PEER_AUTHENTICATION
from agent.cli.mesh import MeshDump
from agent.cli.views.moments import to_the_second
from agent.cli.views.pages import Filter, Row, agent_pods, in_order, ztunnels


def workload_rows(mesh: MeshDump, wanted: Filter) -> list[Row]:
    """Each workload that a ztunnel knows, once; the control plane's when no ztunnel answers."""
    since = {
        (pod["namespace"], pod["name"]): to_the_second(pod.get("since"))
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


def service_rows(mesh: MeshDump, wanted: Filter) -> list[Row]:
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


def policy_rows(mesh: MeshDump, wanted: Filter) -> list[Row]:
    """Each policy that a ztunnel has, once; the control plane's when no ztunnel answers. What was
    made of PeerAuthentications is shown as these; what was made for waypoints, as such."""
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
    made_kind, made_of = made_policies.made_of(name)
    kind = made_kind or str(item.get("kind") or "AuthorizationPolicy")
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
