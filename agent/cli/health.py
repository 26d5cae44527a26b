"""Diagnosis of a mesh from its own pages: processes, pods, manifests. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection
from datetime import datetime
from typing import Any

from agent.checks.leaves import certificates_in_trouble
from agent.cli import made_policies
from agent.cli.mesh import MeshDump, is_foreign
from agent.cli.views.namespaces import mode
from agent.cli.views.pages import Row, agent_pods, in_order, ztunnels
from agent.direct.reasons import MEANINGS
from agent.fetch import NO_ANSWER
from agent.kubelet.reasons import MEANINGS as KUBELET_MEANINGS
from control.kit.choices import listed

_ERRNO = re.compile(r"^\[Errno \d+\] ")
# Explanations of the agent's stable reasons, for tables.
REASONS = {
    "enrolling": "being captured right now",
    "no_ztunnel": "no ztunnel is connected on its node",
    "no_intent": "the control plane has sent no intent for it",
    "no_address": "it has no address yet",
    "announcing": "its peers are told first",
    "releasing": "it is being let go right now",
    "lingering": "it has left; connections that it had open have time to end",
}


def components(mesh: MeshDump) -> list[Row]:
    """One row for each process, with its state and its problems."""
    rows = [_control_row(mesh)]
    for node, parts in sorted(mesh.nodes.items()):
        rows.append(_agent_row(mesh, node, parts.get("agent")))
        rows.append(_ztunnel_row(mesh, node, parts.get("ztunnel"), parts.get("agent")))
    return rows


def _silent(mesh: MeshDump, name: str, effect: str) -> str:
    """Detail of a process that gave no page: the reason, as far as it is known."""
    why = mesh.away.get(name, "").partition(": ")[2]
    detail = why.partition(":")[0] or "no answer on its admin socket"
    return f"{detail}; {effect}" if effect else detail


def _control_row(mesh: MeshDump) -> Row:
    status = mesh.control.get("status")
    if not status and not mesh.control and "control" not in mesh.away:
        return _component("control", "", "elsewhere", "not on this host", {})
    if not status:
        detail = _silent(mesh, "control", "nodes keep their last state")
        return _component("control", "", "away", detail, {})
    nodes = {str(item.get("node")) for item in status.get("nodes") or []}
    detail, count = f"nodes {len(nodes)}", len(problems(mesh))
    if count:
        detail += f"; {count} problem{'s' if count > 1 else ''} in manifests"
    return _component("control", "", "warning" if count else "ok", detail, status)


def _component(name: str, node: str, state: str, detail: str, page: Row) -> Row:
    version, compiled = page.get("version"), None
    if isinstance(version, dict):  # a ztunnel's
        compiled = version.get("compiled")
        version = version.get("version")
    row = {"component": name, "node": node, "state": state, "detail": detail}
    return {
        **row,
        "version": version,
        "compiled": compiled,
        "name": f"{name}-{node}" if node else name,
    }


def _agent_row(mesh: MeshDump, node: str, page: Row | None) -> Row:
    if not page:
        away = _silent(mesh, f"agent-{node}", "captured pods stay captured")
        return _component("agent", node, "away", away, {})
    states = [pod.get("state") for pod in page.get("pods") or []]
    captured, leaving = states.count("captured"), states.count("releasing")
    wanted = len(states) - leaving - states.count("not_enrolled")
    control = page.get("control") or {}
    wrong = [] if control.get("connected") else [f"control plane away: {_why(control)}"]
    if not page.get("ztunnels"):
        wrong.append("no ztunnel is connected")
    parts = [f"{captured}/{wanted} enrolled pods captured" if wanted else "no pods enrolled"]
    parts += [f"{leaving} leaving the mesh"] if leaving else []
    parts += _direct(page.get("direct") or {})
    parts += _kubelet(page)
    state = "warning" if wrong or captured < wanted else "ok"
    return _component("agent", node, state, "; ".join([*parts, *wrong]), page)


def _direct(page: Row) -> list[str]:
    """The direct path in words; an older agent has none."""
    if not page:
        return []
    reason = str(page.get("reason") or "")
    if not page.get("on"):
        return [f"direct path off ({MEANINGS.get(reason, reason)})"]
    return ["direct path on, with shortcut" if page.get("shortcut") == "on" else "direct path on"]


def _kubelet(page: Row) -> list[str]:
    """The kubelet in words, where there is one or pods that wait for its probes."""
    kubelet = page.get("kubelet") or {}
    if kubelet.get("recognised"):
        return ["kubelet's probes recognised"]
    if not kubelet or not any(pod.get("probe_ports") for pod in page.get("pods") or []):
        return []
    reason = str(kubelet.get("reason") or "")
    return [f"kubelet's probes not recognised ({KUBELET_MEANINGS.get(reason, reason)})"]


def _ztunnel_row(mesh: MeshDump, node: str, page: Row | None, agent: Row | None) -> Row:
    if not page:
        if is_foreign(agent):
            detail = "of another make, connected to the agent; it has no admin socket here"
            return _component("ztunnel", node, "ok", detail, {})
        pods = [pod for pod in (agent or {}).get("pods") or [] if pod.get("state") == "captured"]
        name = f"ztunnel-{node}"
        # One that lives and says nothing: its workers serve on.
        hangs = mesh.away.get(name, "").endswith(NO_ANSWER)
        what = "hear of no change" if hangs else "refuse connections"
        harm = f"{len(pods)} captured pods {what} until it is back" if pods else ""
        away = _silent(mesh, name, harm)
        return _component("ztunnel", node, "away", away, {})
    states = (page.get("workloadState") or {}).values()
    count = sum(
        len((state.get("connections") or {}).get(side) or [])
        for state in states
        for side in ("inbound", "outbound")
    )
    workers = page.get("workers") or []
    wrong = []
    for key, name in (("control", "control plane"), ("agent", "agent")):
        part = page.get(key) or {}
        if not part.get("connected", True):
            wrong.append(f"{name} away: {_why(part)}")
    refusing = sum(bool(state.get("missingPolicies")) for state in states)
    if refusing:
        wrong.append(f"pods that refuse, as a policy that they name has not come: {refusing}")
    behind = sum(not each.get("current", True) for each in workers)
    if behind:
        wrong.append(f"workers that have not taken the last changes yet: {behind}")
    if troubled := _leaves_in_trouble(page, mesh.taken_at):
        wrong.append(f"certificates that are expired, missing or late: {troubled}")
    number = len(workers)
    detail = "; ".join([f"workers {number}, pods {len(states)}, connections {count}", *wrong])
    return _component("ztunnel", node, "warning" if wrong else "ok", detail, page)


def _leaves_in_trouble(page: Row, now: datetime) -> int:
    """0 too where a ztunnel of another make writes them otherwise: `tulle check` says that."""
    try:
        return len(list(certificates_in_trouble(page, now)))
    except (ValueError, TypeError, KeyError, AttributeError):
        return 0


def _why(part: Row) -> str:
    """The last cause of a chain; `tulle dump` has all of it."""
    said = str(part.get("error") or "not connected yet").removesuffix(": OK")  # as gRPC ends
    cause = _ERRNO.sub("", said.rpartition(": ")[2])
    is_refused = "CERTIFICATE_VERIFY_FAILED" in said
    return f"its certificate is refused: {cause}" if is_refused else cause


def problems(mesh: MeshDump) -> list[Row]:
    """Problems that the control plane found in the manifests."""
    return _said(mesh, "problems")


def notes(mesh: MeshDump, namespace: str = "") -> list[Row]:
    """Objects that are in force and do less, or more, than they say: a dropped rule denies."""
    return [row for row in _said(mesh, "notes") if namespace in ("", _namespace_of(row))]


def missing_policies(mesh: MeshDump, namespace: str = "") -> list[str]:
    """A sentence for each pod that names policies which its ztunnel was not sent."""
    found = []
    for node, dump in ztunnels(mesh):
        for state in (dump.get("workloadState") or {}).values():
            names, info = state.get("missingPolicies") or [], state.get("info") or {}
            if names and namespace in ("", info.get("namespace")):
                lacking = made_policies.words(", ".join(map(str, names)))
                found.append(
                    f"{info.get('namespace')}/{info.get('name')} on {node} refuses connections: "
                    f"the control plane has not sent {lacking}"
                )
    return sorted(found)


def late_policies(mesh: MeshDump, namespace: str = "") -> list[str]:
    """A sentence for each authorization policy that a node's ztunnel does not have yet."""
    wanted = {
        f"{each.get('namespace')}/{each.get('name')}"
        for each in mesh.control.get("policies") or []
        if each.get("kind") == "AuthorizationPolicy"
        and each.get("delivered")
        and namespace in ("", each.get("namespace"))
    }
    lacking: dict[str, list[str]] = {}
    for node, dump in ztunnels(mesh):
        there = {f"{each['namespace']}/{each['name']}" for each in dump.get("policies") or []}
        for name in wanted - there:
            lacking.setdefault(name, []).append(node)
    return [
        f"{name} is not in force yet on {listed(nodes)}" for name, nodes in sorted(lacking.items())
    ]


def _said(mesh: MeshDump, page: str) -> list[Row]:
    found = []
    for said in mesh.control.get(page) or []:
        row = said if isinstance(said, dict) else {"message": str(said)}
        found.append({**row, "name": row.get("object")})
    return found


def _namespace_of(row: Row) -> str:
    """The namespace of `Kind NAMESPACE/NAME`."""
    return str(row.get("object") or "").partition(" ")[2].partition("/")[0]


def problem_text(problem: Row) -> str:
    """`file:line: object: message`, as far as they are known."""
    where = ":".join(str(problem[key]) for key in ("file", "line") if problem.get(key))
    parts = [where, problem.get("object"), problem.get("message")]
    return ": ".join(str(part) for part in parts if part)


def uncaptured(mesh: MeshDump) -> list[Row]:
    """Pods that should be in the mesh and are not, or are leaving it, with the reasons."""
    rows = []
    for node, pod in agent_pods(mesh):
        if pod.get("state") not in ("captured", "not_enrolled"):
            keys = ("namespace", "name", "state", "reason", "since")
            rows.append({**{key: pod.get(key) for key in keys}, "node": node})
    return in_order([*rows, *_opted_out(mesh, {(row["namespace"], row["name"]) for row in rows})])


def lost_in_kernel(mesh: MeshDump) -> list[str]:
    """A line for each part of a capture that a node's kernel lacks, although it was put back."""
    return [
        f"{node}: {line}"
        for node, parts in sorted(mesh.nodes.items())
        for line in ((parts.get("agent") or {}).get("kernel") or {}).get("standing") or []
    ]


def _opted_out(mesh: MeshDump, shown: Collection[tuple[Any, Any]]) -> list[Row]:
    """Pods of enrolled namespaces that the control plane leaves out (label, host network, …)."""
    labels = mesh.labels.get("namespace") or {}
    return [
        {
            "namespace": pod["namespace"],
            "name": pod["name"],
            "state": "not_enrolled",
            "reason": pod.get("reason"),
            "since": None,
            "node": pod.get("node"),
        }
        for pod in mesh.control.get("pods") or []
        if mode(labels.get(pod["namespace"]) or {}) == "ambient"
        and not pod.get("enrolled")
        and (pod["namespace"], pod["name"]) not in shown
        and (not pod.get("node") or pod["node"] in mesh.nodes)
    ]


def reason_text(row: Row) -> Any:
    return REASONS.get(str(row.get("reason")), row.get("reason"))
