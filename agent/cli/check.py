"""`tulle check`: checks of every node and of the control plane, with an overall verdict."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from agent.cli import health, mesh
from agent.cli.cluster.choice import chosen, cluster_options
from agent.cli.mesh import MeshDump, MeshSource
from agent.cli.options import timeout_option
from agent.cli.render import cell, colour_wanted
from agent.cli.senders import refused_of_nodes
from control.kit.errors import MeshError
from control.kit.terminal import is_interactive

SIGNS = {"ok": "√", "warning": "‼", "error": "×"}
COLOURS = {"ok": "green", "warning": "yellow", "error": "red"}
RETRY_S = 1.0
ERROR_LINES = 20
TOLD_MAX = 20  # pods of one check
DOCS = "README.md#check"  # each code has its line there

_CLUSTER_HINTS = {
    "TUL1101": "kubectl -n tulle-system get pods -o wide; see the logs of the agent on this node",
    "TUL1201": "kubectl -n tulle-system logs deployment/tulle-control; nodes work meanwhile",
    "TUL1202": "correct the object; it is read again at once",
}
_PARTS = ("check", "agent", "control")

Check = dict[str, Any]


@click.command()
@click.option("--pre", is_flag=True, help="Check this host alone, before there is a mesh.")
@click.option("--node", metavar="NAME", help="Ask this node only.")
@click.option("--wait", is_flag=True, help="Retry until nothing fails or the time is up.")
@timeout_option
@click.option(
    "-f",
    "--file",
    "dump_file",
    type=click.Path(path_type=Path),
    help="Read a file of `tulle dump` instead.",
)
@click.option(
    "-o",
    "--output",
    "shape",
    type=click.Choice(["table", "json", "short"]),
    default="table",
    help="short: only checks that are not ok.",
)
@click.option("-v", "--verbose", is_flag=True, help="Whole verifier logs, not their ends.")
@cluster_options
@click.pass_context
def check(
    ctx: click.Context,
    pre: bool,
    node: str | None,
    wait: bool,
    timeout: float,
    dump_file: Path | None,
    shape: str,
    verbose: bool,
) -> None:
    """Check this host and its mesh, or a cluster and the mesh in it.

    --pre asks if Tulle may be installed: on this host, or in the cluster.
    Exits 0 when no check failed (there may be warnings), 1 when one failed, 2 when the checks could
    not be made.

    Example: tulle check --pre; tulle check --wait
    """
    if pre and (node or dump_file):
        raise click.UsageError("--pre asks before there is a node or a dump: leave --node, -f out")
    cluster = None if dump_file else chosen(ctx)
    source = MeshSource(Path(ctx.find_root().obj), dump_file, node or "", timeout, cluster)
    deadline = time.monotonic() + timeout
    while True:
        problem: MeshError | None = None
        found: list[Check] = []
        try:
            found = _made(source, pre)
        except MeshError as exc:
            problem = exc
        failed = problem is not None or verdict(found) == "error"
        if not (wait and failed and time.monotonic() < deadline):
            break
        click.echo("not yet; trying again", err=True)
        time.sleep(RETRY_S)
    if problem is not None:
        click.echo(f"error: {problem}", err=True)
        ctx.exit(2)
    lines_max = None if verbose else ERROR_LINES
    click.echo(render(found, shape, colour_wanted(), lines_max), nl=False)
    ctx.exit(1 if verdict(found) == "error" else 0)


def _made(source: MeshSource, pre: bool) -> list[Check]:
    """All checks of the mesh, or those before there is one."""
    if source.cluster is None:
        return host() if pre else collect(mesh.read(source, _PARTS))
    from agent.cli.cluster import checks, session

    if pre:
        return session.ask(source.cluster, checks.before)
    made = [_in_cluster(each) for each in collect(mesh.read(source, _PARTS))]
    return made if source.node else made + session.ask(source.cluster, checks.installed)


def _in_cluster(item: Check) -> Check:
    """The check, with the hint of a cluster in place of a host's."""
    hint = _CLUSTER_HINTS.get(item["code"], "") if item["result"] != "ok" else ""
    return {**item, "hint": hint} if hint else item


def host() -> list[Check]:
    """Checks of this host alone, made here without any process of the mesh."""
    from agent.checks.host import host_checks  # loads the whole kernel half: only for --pre

    if os.geteuid() != 0:
        click.echo("warning: most checks need root", err=True)
    if is_interactive(sys.stderr):
        click.echo("loading every eBPF program once …", err=True)
    return [item.as_json() for item in host_checks()]


def collect(found: MeshDump) -> list[Check]:
    """Checks of all nodes, then those of the control plane and of the mesh as a whole."""
    checks: list[Check] = []
    for node, parts in sorted(found.nodes.items()):
        if "check" in parts:
            checks += [{**item, "node": node} for item in parts["check"]]
        if "check" not in parts or f"agent-{node}" in found.away:
            checks.append(_agent_away(node, found.away.get(f"agent-{node}", "")))
    checks += _of_nodes(found)
    checks.append(_control(found))
    checks += _manifests(found)
    checks += _notes(found)
    checks.append(_versions(found))
    return checks


def _agent_away(node: str, why: str) -> Check:
    return {
        "code": "TUL1101",
        "category": "agent",
        "description": "the agent answers",
        "result": "error",
        "error": why or "no answer on its admin socket",
        "hint": f"is tulle-agent --node {node} running? see its log",
        "node": node,
    }


def _of_nodes(found: MeshDump) -> list[Check]:
    """A warning for each captured pod that refused processes on a node's own network. Nothing, if
    the control plane did not say which addresses are nodes'."""
    if found.control.get("pods") is None:
        return []
    one = {
        "code": "TUL1006",
        "category": "pods",
        "description": "no pod refused a node's own network",
    }
    told = refused_of_nodes(found)
    if not told:
        return [{**one, "result": "ok", "error": "", "hint": ""}]
    hint = (
        "hostNetwork pods and a node's processes have no identity: make that port PERMISSIVE "
        "(portLevelMtls), or take the client off the host's network"
    )
    more = [f"… and {len(told) - TOLD_MAX} more"] if len(told) > TOLD_MAX else []
    texts = (*told[:TOLD_MAX], *more)
    return [{**one, "result": "warning", "error": text, "hint": hint} for text in texts]


def _control(found: MeshDump) -> Check:
    """An error where it should run; elsewhere its state is only not known."""
    well, why = bool(found.control.get("status")), found.away.get("control", "")
    error = why or ("" if well else "not on this host, so not asked")
    hint = "start tulle-control; nodes keep working without it" if why else "run this on its host"
    return {
        "code": "TUL1201",
        "category": "control plane",
        "description": "the control plane's admin socket answers",
        "result": "error" if why else "ok" if well else "warning",
        "error": error,
        "hint": hint if error else "",
    }


def _manifests(found: MeshDump) -> list[Check]:
    problems = [_manifest(problem) for problem in health.problems(found)]
    if problems:
        return problems
    heard = found.control.get("problems") is not None
    return [
        {
            "code": "TUL1202",
            "category": "control plane",
            "description": "the manifests are valid",
            "result": "ok" if heard else "warning",
            "error": "" if heard else "not known: the control plane was not heard",
            "hint": "" if heard else "see TUL1201",
        }
    ]


def _notes(found: MeshDump) -> list[Check]:
    """A warning for each object that is in force otherwise than it is written."""
    one = {
        "code": "TUL1203",
        "category": "control plane",
        "description": "every object is enforced as it is written",
    }
    told = [health.problem_text(note) for note in health.notes(found)]
    if not told and found.control.get("notes") is not None:
        return [{**one, "result": "ok", "error": "", "hint": ""}]
    hint = "correct the object, or accept what is said; layer 7 needs a waypoint"
    if not told:
        told, hint = ["not known: the control plane was not heard"], "see TUL1201"
    return [{**one, "result": "warning", "error": text, "hint": hint} for text in told]


def _manifest(problem: Check) -> Check:
    return {
        "code": "TUL1202",
        "category": "control plane",
        "description": "the manifests are valid",
        "result": "error",
        "error": health.problem_text(problem),
        "hint": "correct and save the file; it is read again at once",
    }


def _versions(found: MeshDump) -> Check:
    versions = {
        str((parts.get("agent") or {}).get("version", "")) for parts in found.nodes.values()
    }
    versions = {item for item in versions if item}
    silent = [node for node, parts in sorted(found.nodes.items()) if not parts.get("agent")]
    error, hint = "", ""
    if len(versions) > 1:
        error, hint = ", ".join(sorted(versions)), "finish the upgrade"
    elif silent or not found.nodes:
        error, hint = f"not known of: {', '.join(silent) or 'any node'}", "see TUL1101"
    return {
        "code": "TUL1301",
        "category": "versions",
        "description": "all agents have the same version",
        "result": "warning" if error else "ok",
        "error": error,
        "hint": hint,
    }


def verdict(checks: Sequence[Check]) -> str:
    results = {item["result"] for item in checks}
    return "error" if "error" in results else "warning" if "warning" in results else "ok"


def render(checks: Sequence[Check], shape: str, colour: bool, lines_max: int | None = None) -> str:
    """`lines_max`: lines of one error, such as a verifier's log; the last ones say why."""
    if shape == "json":
        return json.dumps(as_json(checks), indent=2) + "\n"
    lines: list[str] = []
    for title, group in categories(checks):
        shown = [item for item in group if shape != "short" or item["result"] != "ok"]
        if not shown:
            continue
        lines += [
            title,
            "-" * len(title),
            *(line for item in _joined(shown) for line in _lines(item, colour, lines_max)),
        ]
        lines.append("")
    lines.append(f"Status check results are {_sign(verdict(checks), colour)}")
    return "\n".join(lines) + "\n"


def categories(checks: Sequence[Check]) -> list[tuple[str, list[Check]]]:
    """(title, checks) in order of appearance; the title of a node's checks has its name."""
    groups: dict[str, list[Check]] = {}
    for item in checks:
        node = item.get("node")
        title = f"{item['category']} ({node})" if node else item["category"]
        groups.setdefault(title, []).append(item)
    return list(groups.items())


def as_json(checks: Sequence[Check]) -> dict[str, Any]:
    return {
        "success": verdict(checks) != "error",
        "categories": [
            {"categoryName": title, "checks": group} for title, group in categories(checks)
        ],
    }


def _joined(checks: Sequence[Check]) -> list[Check]:
    """Neighbours that differ only in what they found, as one check that tells all of it."""
    found: list[Check] = []
    for item in checks:
        is_alike = found and all(
            found[-1].get(name) == item.get(name)
            for name in ("code", "description", "result", "hint")
        )
        if is_alike and item["result"] != "ok":
            found[-1] = {**found[-1], "error": f"{found[-1]['error']}\n{item['error']}"}
        else:
            found.append(item)
    return found


def _lines(item: Check, colour: bool, lines_max: int | None) -> list[str]:
    lines = [f"{_sign(item['result'], colour)} {cell(item['description'])}"]
    if item["result"] != "ok":
        said = str(item["error"]).splitlines() or [""]
        left_out = len(said) - lines_max if lines_max and len(said) > lines_max else 0
        if left_out:
            lines.append(f"    … {left_out} lines before (-v shows them)")
        lines += [f"    {cell(line.expandtabs())}".rstrip() for line in said[left_out:]]
        if item.get("hint"):
            lines.append(f"    hint: {cell(item['hint'])}")
        lines.append(f"    see {item['code']} in {DOCS}")
    return lines


def _sign(result: str, colour: bool) -> str:
    sign = SIGNS.get(result, "?")
    return click.style(sign, fg=COLOURS.get(result)) if colour else sign
