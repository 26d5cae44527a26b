"""`tulle log level`: log levels of running processes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from agent.cli import mesh
from agent.cli.options import Reading, read_options
from agent.cli.render import Column, show
from agent.fetch import checked, request
from control.kit.errors import ConfigError

COMPONENTS = ("agent", "ztunnel", "control")
COLUMNS = (
    Column("COMPONENT", "component"),
    Column("NODE", "node"),
    Column("SCOPE", "scope"),
    Column("LEVEL", "level"),
)
_PAGES = {"agent": "/logging", "ztunnel": "/logging", "control": "/log"}


@click.group()
def log() -> None:
    """Read and set log levels of running processes.

    Example: tulle log level n1 debug --component ztunnel
    """


@log.command()
@click.argument("where", metavar="[NODE]", required=False)
@click.argument("level", metavar="[LEVEL]", required=False)
@click.option("--component", type=click.Choice(COMPONENTS), help="This component only.")
@read_options(namespaced=False)
def level(ask: Reading, where: str | None, level: str | None, component: str | None) -> None:
    """Show log levels; with LEVEL, set it first. NODE `-` means all nodes.

    LEVEL is like info, or info,access:debug. It lasts until the process ends.

    Example: tulle log level n1 debug --component ztunnel
    """
    chosen = "" if where in (None, "-") else str(where)
    _expect_node(ask.source, chosen, level)
    if level is not None:
        if ask.source.file is not None:
            raise click.UsageError("a dump has no levels to set")
        _set(ask.source.run_dir, chosen, level, component)
    show(ask.out, lambda: rows(ask.read("logging", "control"), chosen, component), COLUMNS)


def _expect_node(source: mesh.MeshSource, node: str, level: str | None) -> None:
    names = sorted(mesh.load_dump(source.file).nodes) if source.file else mesh.nodes(source.run_dir)
    if node and names and node not in names:
        hint = "" if level else f" (to set the level of all: tulle log level - {node})"
        raise ConfigError(f"no node {node!r}; there are: {', '.join(names)}{hint}")


def _set(run_dir: Path, node: str, level: str, component: str | None) -> None:
    names = mesh.nodes(run_dir)
    kinds = (
        [component]
        if component
        else [kind for kind in COMPONENTS if not (node and kind == "control")]
    )
    for kind in kinds:
        for name in [""] if kind == "control" else [node] if node else names:
            path = mesh.socket_of(run_dir, kind, name)
            answer = request(path, "POST", _PAGES[kind], query={"level": level})
            checked(answer, f"{kind} {name}".strip())


def rows(found: mesh.MeshDump, node: str, component: str | None) -> list[dict[str, Any]]:
    """One row for each scope that has a level of its own."""
    levels: list[tuple[str, str, Any]] = []
    if not node:
        levels.append(("control", "", found.control.get("log")))
    for name, parts in sorted(found.nodes.items()):
        if node in ("", name):
            pages = parts.get("logging") or {}
            levels += [(kind, name, pages.get(kind)) for kind in ("agent", "ztunnel")]
    return [
        {"component": kind, "node": name, "name": kind, "scope": scope or "*", "level": value}
        for kind, name, scopes in levels
        if component in (None, kind)
        for scope, value in (scopes or {}).items()
    ]
