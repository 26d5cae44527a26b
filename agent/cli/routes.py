"""`tulle routes`: what waypoints do with requests, and the way of one request."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import click

from agent.cli import health
from agent.cli.mesh import MeshDump
from agent.cli.options import Reading, read_options
from agent.cli.render import Column, cell
from agent.cli.views.explanation import BadQuestion, explain, find_front, question
from agent.cli.views.pages import Row
from agent.cli.views.routes import front_rows
from control.kit.choices import absent
from control.kit.command import PlainGroup
from control.kit.errors import ConfigError, WireError
from control.model.identity import SpiffeId, parse_spiffe_id
from control.model.route import Waypoint, WaypointKey
from control.model.workload import DEFAULT_TRUST_DOMAIN
from control.wire import waypoint_page

COLUMNS = (
    Column("NAMESPACE", "namespace"),
    Column("SERVICE", "service"),
    Column("PORT", "port"),
    Column("MATCH", "match"),
    Column("TO", "to"),
    Column("POLICIES", "policies"),
    Column("WAYPOINT", "waypoint", wide=True),
    Column("ROUTE", "route", wide=True),
    Column("DOES", "does", wide=True),
)
STEPS = (Column("STEP", "step"), Column("FOUND", "found"))
LIST = "list"
ROUTE_KINDS = ("HTTPRoute", "GRPCRoute", "TCPRoute")


class RoutesGroup(PlainGroup):
    """`tulle routes` alone lists."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args or args[0] not in (*self.commands, "-h", "--help"):
            args = [LIST, *args]
        return super().parse_args(ctx, args)


@click.group(cls=RoutesGroup)
def routes() -> None:
    """List the routes of waypoints; explain one request.

    Example: tulle routes explain GET http://reviews.shop/x --as shop/shopper
    """


@routes.command(LIST)
@click.argument("service", required=False, default="")
@read_options()
def list_command(ask: Reading, service: str) -> None:
    """List the routes of services behind waypoints, in their order: the first that matches decides.

    A service that is not here has no waypoint: layer 4 carries it as it is. Notes on standard error
    say which routes, or which labels, have no effect.

    Example: tulle routes -n shop reviews
    """

    def rows() -> list[Row]:
        mesh = ask.read("control")
        for note in health.notes(mesh, ask.wanted.namespace):
            if str(note.get("object")).startswith(ROUTE_KINDS) or _is_of_waypoint(note):
                click.echo(f"note: {cell(health.problem_text(note))}", err=True)
        found = [
            row
            for waypoint in waypoints_of(mesh).values()
            for name in sorted(waypoint.fronts)
            for row in front_rows(waypoint, waypoint.fronts[name])
        ]
        wanted = ask.wanted.namespace
        found = [row for row in found if not wanted or row["namespace"] == wanted]
        known = {row["service"] for row in found}
        if service and service not in known:
            raise ConfigError(absent("service", service, known) + ", behind a waypoint")
        return [row for row in found if not service or row["service"] == service]

    ask.show(rows, COLUMNS, "no routes: no service is behind a waypoint")


@routes.command("explain")
@click.argument("method")
@click.argument("url")
@click.option(
    "--as",
    "caller",
    metavar="NS/SA",
    help="The caller's namespace and service account. Without it: one from outside the mesh.",
)
@click.option("-H", "--header", "headers", multiple=True, help="A header, like 'x-version: 2'.")
@read_options(namespaced=False)
def explain_command(
    ask: Reading, method: str, url: str, caller: str | None, headers: tuple[str, ...]
) -> None:
    """Tell the way of one request, without sending it: service, rule, policy, backends.

    By what the control plane tells its waypoints now. A bare name is a service of the caller's own
    namespace. Exits 1 if the request would be refused.

    Example: tulle routes explain GET http://reviews.shop/x --as shop/shopper
    """
    mesh = ask.read("control")
    try:
        asked = question(method, url, headers, _identity(caller, mesh))
    except BadQuestion as exc:
        raise ConfigError(str(exc)) from exc
    found = find_front(waypoints_of(mesh), asked)
    if found is None:
        raise ConfigError(
            f"no service behind a waypoint is {asked.host}:{asked.port} for this caller: "
            "layer 4 alone decides there (`tulle services`, `tulle policies`)"
        )
    told = explain(*found, asked)
    if ask.out.format in ("json", "yaml"):
        ask.show(lambda: told, STEPS)
    else:
        ask.show(lambda: list(_steps(told)), STEPS)
    if not told["allowed"]:
        click.get_current_context().exit(1)


def _is_of_waypoint(note: Row) -> bool:
    return str(note.get("reason")).startswith("waypoint_")


def waypoints_of(mesh: MeshDump) -> dict[WaypointKey, Waypoint]:
    """All waypoints of the control plane's page. Raises ConfigError."""
    try:
        return waypoint_page.waypoints_of(mesh.control.get("routes") or [])
    except WireError as exc:
        raise ConfigError(f"the page of routes is not of this version: {exc}") from exc


def _identity(text: str | None, mesh: MeshDump) -> SpiffeId | None:
    """`namespace/account`, or a whole SPIFFE id."""
    if text is None:
        return None
    domain = (mesh.control.get("status") or {}).get("trust_domain") or DEFAULT_TRUST_DOMAIN
    namespace, slash, account = text.partition("/")
    whole = f"spiffe://{domain}/ns/{namespace}/sa/{account}" if slash else text
    try:
        return parse_spiffe_id(text if "://" in text else whole)
    except ValueError as exc:
        raise ConfigError(f"--as {text!r} is not namespace/account") from exc


def _steps(told: dict[str, Any]) -> Iterable[Row]:
    yield {"step": "service", "found": f"{told['front']} ({told['layer']})"}
    yield {"step": "waypoint", "found": told["waypoint"]}
    yield {"step": "policy", "found": told["verdict"]}
    for name in told["dry_run"]:
        yield {"step": "dry run", "found": f"{name} would refuse it"}
    route = f"{told['rule']}: {told['match']}" if told["rule"] else told["match"]
    yield {"step": "route", "found": route}
    for change in told.get("changes", ()):
        yield {"step": "then", "found": change}
    if "status" in told:
        yield {"step": "answer", "found": f"{told['status']} by the waypoint"}
        return
    for each in told["backends"] if told["allowed"] else ():
        count = f"{each['healthy']}/{each['endpoints']} endpoints"
        yield {"step": "backend", "found": f"{each['percent']:g}% {each['backend']}, {count}"}
    if not told["allowed"]:
        yield {"step": "answer", "found": "the connection is refused"}
