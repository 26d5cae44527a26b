"""`tulle refusals`: connections that failed of late, at either end and in the kernel, and why."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from agent.cli import made_policies
from agent.cli.connections import expect_captured, named_pod
from agent.cli.mesh import MeshDump
from agent.cli.options import Reading, read_options
from agent.cli.render import Column
from agent.cli.senders import host_of, senders
from agent.cli.views.moments import age
from agent.cli.views.pages import Filter, Row, agent_pods, ztunnels
from agent.datapath.refusals import REFUSALS

COLUMNS = (
    Column("LAST", "last"),
    Column("COUNT", "count"),
    Column("DIRECTION", "direction"),
    Column("SRC", "src"),
    Column("DST", "dst"),
    Column("ORIG-DST", "orig_dst"),
    Column("REASON", "reason"),
    Column("NODE", "node", wide=True),
    Column("FLAG", "flag", wide=True),
    Column("SRC-ADDRESS", "src_address", wide=True),
    Column("SRC-ID", "src_id", wide=True),
    Column("SERVICE", "service", wide=True),
)


@click.command()
@click.argument("pod", required=False)
@read_options()
def refusals(ask: Reading, pod: str | None) -> None:
    """List connections of POD (NAMESPACE/POD or a name), or of all pods, that failed of late.

    The newest first; COUNT of them were alike. A refusal by policy names the policy. One between
    two nodes is listed twice: outbound where it was made, inbound where it was refused. LAST is
    empty for those that the kernel refused: it counts them, without a time.

    Example: tulle refusals shop/ratings-v1
    """
    wanted = named_pod(ask.wanted, pod) if pod else ask.wanted

    def found() -> list[Row]:
        mesh = ask.read("ztunnel", "agent")
        if pod:
            expect_captured(mesh, pod, wanted)
        return rows(mesh, wanted)

    ask.show(found, COLUMNS, "no connection failed")


def rows(mesh: MeshDump, wanted: Filter) -> list[Row]:
    """One row for each group of refusals that were alike; either end may be the wanted pod."""
    known = senders(mesh)
    found = [_row(mesh, node, one, known) for node, page in ztunnels(mesh) for one in _of(page)]
    found.sort(key=lambda row: row["last_at"] or "", reverse=True)
    for node, pod in agent_pods(mesh):
        found += [_in_kernel(node, pod, one, known) for one in _of(pod)]
    return [row for row in found if _is_wanted(row, wanted)]


def _of(page: Row) -> list[dict[str, Any]]:
    """An older version tells of none."""
    return [one for one in page.get("refused") or [] if isinstance(one, dict)]


def _row(mesh: MeshDump, node: str, one: Row, known: Mapping[str, str]) -> Row:
    outbound = one.get("direction") == "outbound"
    source, destination = one.get("sourceWorkload"), one.get("destinationWorkload")
    namespace, _, name = str((source if outbound else destination) or "").partition("/")
    return {
        "namespace": namespace,
        "name": name,
        "last": age(mesh, one.get("lastAt")),
        "count": one.get("count"),
        "direction": one.get("direction"),
        "src": source or _named(one, known),
        "dst": destination or one.get("dst"),
        "orig_dst": one.get("dst"),
        "reason": one.get("meaning") or made_policies.words(str(one.get("error") or "")),
        "node": node,
        "flag": one.get("responseFlags"),
        "error": one.get("error"),
        "src_address": one.get("src"),
        "src_id": one.get("sourceIdentity"),
        "service": one.get("service"),
        "last_at": one.get("lastAt"),
    }


def _named(one: Row, known: Mapping[str, str]) -> str:
    source = str(one.get("src") or "")
    return known.get(host_of(source), source)


def _in_kernel(node: str, pod: Row, one: Row, known: Mapping[str, str]) -> Row:
    reason = str(one.get("reason"))
    return {
        "namespace": pod.get("namespace"),
        "name": pod.get("name"),
        "last": None,
        "count": one.get("count"),
        "direction": "inbound",
        "src": f"node {node}" if one.get("host") else _named(one, known),
        "dst": f"{pod.get('namespace')}/{pod.get('name')}",
        "orig_dst": one.get("dst"),
        "reason": _MEANINGS.get(reason, reason),
        "node": node,
        "flag": reason,
        "error": reason,
        "src_address": one.get("src"),
        "src_id": None,
        "service": None,
        "last_at": None,
    }


_MEANINGS = {each.name.lower(): meaning for each, meaning in REFUSALS.items()}


def _is_wanted(row: Row, wanted: Filter) -> bool:
    ends = [str(row[end] or "").partition("/") for end in ("src", "dst")]
    return any(
        wanted.namespace in ("", namespace) and wanted.name in ("", name)
        for namespace, _, name in ends
    )
