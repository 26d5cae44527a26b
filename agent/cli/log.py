"""`tulle log level` and `reset`: log levels of running processes."""

from __future__ import annotations

from typing import Any

import click

from agent.cli import mesh, processes
from agent.cli.options import Reading, read_options
from agent.cli.render import Column
from agent.fetch import FetchError, checked, request
from control.kit.choices import absent
from control.kit.command import PlainGroup
from control.kit.errors import ConfigError
from control.kit.log import DEFAULT, RESET, expect_scopes, parse_levels

COMPONENTS = ("agent", "ztunnel", "control")
COLUMNS = (
    Column("COMPONENT", "component"),
    Column("NODE", "node"),
    Column("SCOPE", "scope"),
    Column("LEVEL", "level"),
)


@click.group(cls=PlainGroup)
def log() -> None:
    """Read and set log levels of running processes.

    Example: tulle log level n1 debug --component ztunnel
    """


_component = click.option("--component", type=click.Choice(COMPONENTS), help="This one only.")


@log.command()
@click.argument("where", metavar="[NODE]", required=False)
@click.argument("level", metavar="[LEVEL]", required=False)
@_component
@read_options(namespaced=False)
def level(ask: Reading, where: str | None, level: str | None, component: str | None) -> None:
    """Show log levels; with LEVEL, set it first. NODE `-` means all nodes.

    LEVEL is like info, or info,access:debug. It lasts until the process ends, or until `reset`;
    access:default resets one scope.

    Example: tulle log level n1 debug --component ztunnel
    """
    _show(ask, where, level, component)


@log.command()
@click.argument("where", metavar="[NODE]", required=False)
@_component
@read_options(namespaced=False)
def reset(ask: Reading, where: str | None, component: str | None) -> None:
    """Set log levels back to those at the start.

    Of every process, or of those of NODE.

    Example: tulle log reset n1
    """
    _show(ask, where, RESET, component)


def _show(ask: Reading, where: str | None, level: str | None, component: str | None) -> None:
    node = "" if where in (None, "-") else str(where)
    if node and component == "control":
        raise click.UsageError("the control plane is of no node: leave NODE out, or write -")
    node = _agreed(node, ask.source.node)
    _expect_node(ask.source, node, level)
    if level is not None:
        try:
            parse_levels(level if level.lower() != RESET else DEFAULT)
        except ValueError as exc:
            raise click.UsageError(f"{exc}; levels: debug, info, warning, error, off") from exc
        _expect_scopes(level)
        if ask.source.file is not None:
            raise click.UsageError("a dump has no levels to set")
        _set(ask.source, node, level, component)
    parts = ["control"] if component == "control" else ["logging"]
    parts += ["control"] if not (node or component) else []
    ask.show(lambda: rows(ask.read(*parts), node, component), COLUMNS)


def _expect_scopes(level: str) -> None:
    """A misspelt scope is refused here: a process of an older version takes any."""
    try:
        if level.lower() != RESET:
            expect_scopes(level)
    except ValueError as exc:
        raise click.UsageError(str(exc)) from exc


def _agreed(argument: str, option: str) -> str:
    if argument and option and argument != option:
        raise click.UsageError(f"two nodes: {argument} and --node {option}")
    return argument or option


def _expect_node(source: mesh.MeshSource, node: str, level: str | None) -> None:
    if source.cluster:
        return  # its nodes are known once it is asked
    if source.file:
        names = sorted(mesh.load_dump(source.file).nodes)
    else:
        names = processes.nodes(source.run_dir)
    if node and names and node not in names:
        hint = "" if level else f" (to set the level of all: tulle log level - {node})"
        raise ConfigError(absent("node", node, names) + hint)


def _set(source: mesh.MeshSource, node: str, level: str, component: str | None) -> None:
    """Set the level in every chosen process, also when one of them does not answer."""
    if source.cluster is not None:
        from agent.cli.cluster import levels, session

        session.ask(
            source.cluster,
            lambda client: levels.set_level(client, node, level, component, source.timeout_s),
        )
        return
    names, control = mesh.known(source.run_dir)
    nodes = [node] if node else names
    chosen = [
        processes.of_node(source.run_dir, kind, name)
        for kind in ("agent", "ztunnel")
        if component in (None, kind)
        for name in nodes
    ]
    if control is not None and not node and component in (None, control.kind):
        chosen.append(control)
    failed = [
        error
        for error in processes.side_by_side(lambda one: _set_one(one, level, source), chosen)
        if error
    ]
    if failed or not chosen:
        done = f"set in {len(chosen) - len(failed)} of {len(chosen)} processes"
        raise FetchError("; ".join([done, *failed]))


def _set_one(process: processes.MeshProcess, level: str, source: mesh.MeshSource) -> str:
    """Empty, or the reason for which it was not set."""
    page, within_s = processes.LOG_PAGES[process.kind], processes.sign_of_life_s(source.timeout_s)
    try:
        answer = request(process.socket, "POST", page, query={"level": level}, timeout_s=within_s)
        checked(answer, process.name)
    except FetchError as exc:
        return str(exc) if exc.status else f"{process.name}: {exc}"
    return ""


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
