"""`tulle status`: processes, namespaces and pods at a glance."""

from __future__ import annotations

from typing import Any

import click

from agent.cli import health
from agent.cli.mesh import MeshDump
from agent.cli.options import Reading, read_options, tell_incomplete
from agent.cli.render import Column, cell, render, show
from agent.cli.views.namespaces import namespace_rows

COMPONENTS = (
    Column("COMPONENT", "component"),
    Column("NODE", "node"),
    Column("STATE", "state"),
    Column("DETAIL", "detail"),
    Column("VERSION", "version", wide=True),
)
NAMESPACES = (
    Column("NAMESPACE", "name"),
    Column("MODE", "mode"),
    Column("PODS", "pods"),
    Column("CAPTURED", "captured"),
)
UNCAPTURED = (
    Column("NAMESPACE", "namespace"),
    Column("POD", "name"),
    Column("NODE", "node"),
    Column("STATE", "state"),
    Column("REASON", "reason"),
)


@click.command()
@read_options(namespaced=False)
@click.pass_context
def status(ctx: click.Context, ask: Reading) -> None:
    """Show the mesh's parts, its namespaces, and problems: pods that are not captured although
    they should be, invalid manifests, and policies that are not enforced as they are written.

    Exits 2 when a part does not answer. `tulle check` looks deeper.

    Example: tulle status
    """
    last: dict[str, Any] = {}

    def fetch() -> dict[str, Any]:
        last.clear()
        last.update(summary(ask.read("agent", "ztunnel", "control")))
        return last

    if ask.out.format in ("json", "yaml"):
        show(ask.out, fetch, COMPONENTS)
    elif ask.out.format == "name":
        show(ask.out, lambda: fetch()["components"], COMPONENTS)
    else:
        show(ask.out, fetch, (), as_text=lambda value: _text(value, ask))
    away = [row["name"] for row in last["components"] if row["state"] == "away"]
    tell_incomplete(ctx, away)
    ask.missing.clear()  # told just now


def summary(found: MeshDump) -> dict[str, Any]:
    return {
        "components": health.components(found),
        "namespaces": namespace_rows(found),
        "not_captured": health.uncaptured(found),
        "lost_in_kernel": health.lost_in_kernel(found),
        "problems": health.problems(found),
        "notes": health.notes(found),
    }


def _text(value: dict[str, Any], ask: Reading) -> str:
    away = [
        row["node"]
        for row in value["components"]
        if row["name"].startswith("agent-") and row["state"] == "away"
    ]
    if away:
        warning = f"CAPTURED leaves out the pods of {', '.join(away)}, whose agent is away"
        click.echo(f"warning: {warning}", err=True)
    parts = [render(value["components"], COMPONENTS, ask.out)]
    if value["namespaces"]:
        parts.append(render(value["namespaces"], NAMESPACES, ask.out))
    rows = [{**row, "reason": health.reason_text(row)} for row in value["not_captured"]]
    for title, leaving in (("Not captured:", False), ("Leaving the mesh:", True)):
        chosen = [row for row in rows if (row["state"] == "releasing") is leaving]
        if chosen:
            parts.append(f"{title}\n" + render(chosen, UNCAPTURED, ask.out))
    if value["lost_in_kernel"]:
        lines = "".join(f"  {cell(line)}\n" for line in value["lost_in_kernel"])
        parts.append(f"Lost in the kernel, again and again:\n{lines}")
    for title, key in (("Problems in manifests:", "problems"), ("Not as written:", "notes")):
        if value[key]:
            lines = "".join(f"  {cell(health.problem_text(one))}\n" for one in value[key])
            parts.append(f"{title}\n{lines}")
    return "\n".join(parts)
