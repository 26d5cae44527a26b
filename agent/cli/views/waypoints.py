"""Waypoints and their processes as rows, by the control plane's page. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator

from agent.cli.mesh import MeshDump
from agent.cli.views.moments import age
from agent.cli.views.pages import Row

IN_STEP, BEHIND = "in step", "behind"
NOBODY = "no process"


def waypoint_rows(mesh: MeshDump) -> Iterator[Row]:
    """One row each, by name."""
    for page in mesh.control.get("waypoints") or []:
        clients = page.get("clients") or []
        yield {
            "namespace": page["namespace"],
            "name": page["name"],
            "processes": len(clients),
            "services": _services(mesh, page),
            "state": state_of(page),
            "account": page.get("account"),
            "resources": sum((page.get("resources") or {}).values()),
        }


def client_rows(mesh: MeshDump, page: Row) -> Iterator[Row]:
    """One row for each process of a waypoint."""
    for each in page.get("clients") or []:
        types = (each.get("types") or {}).values()
        yield {
            "pod": str(each["id"]).rpartition("~")[2],
            "node": each.get("node"),
            "since": age(mesh, each.get("since")),
            "state": _client_state(each),
            "pending": sum(one.get("pending", 0) for one in types),
            "nacks": sum(one.get("nacks", 0) for one in types),
            "peer": each.get("peer"),
        }


def state_of(page: Row) -> str:
    """`in step`, or the worst of its processes."""
    states = [_client_state(each) for each in page.get("clients") or []]
    if not states:
        return NOBODY
    return max(states, key=lambda each: (each != IN_STEP, each != BEHIND))


def refusal_of(mesh: MeshDump, page: Row) -> str:
    """The last that one of its processes did not take, and when; "": there was none."""
    nack = page.get("nack")
    if not nack:
        return ""
    return f"{nack['type']}, {age(mesh, nack.get('at'))} ago: {nack['error']}"


def _client_state(client: Row) -> str:
    types: dict[str, Row] = client.get("types") or {}
    refused = sorted(name for name, each in types.items() if _is_refused(each))
    if refused:
        return f"refused {', '.join(refused)}"
    is_behind = any(each.get("pending") or each.get("in_flight") for each in types.values())
    return BEHIND if is_behind else IN_STEP


def _is_refused(kind: Row) -> bool:
    """True while its last word about this type was a no. Nonces count up."""
    return _number(kind.get("nacked")) > _number(kind.get("acked"))


def _number(nonce: object) -> int:
    digits = re.search(r"\d+$", str(nonce or ""))
    return int(digits[0]) if digits else -1


def _services(mesh: MeshDump, page: Row) -> int:
    """Services that the waypoint stands before."""
    return len(
        {
            each["front"]["service"]
            for each in mesh.control.get("routes") or []
            if isinstance(each.get("front"), dict)
            and (each["namespace"], each["name"]) == (page["namespace"], page["name"])
        }
    )
