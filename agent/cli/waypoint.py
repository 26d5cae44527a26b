"""`tulle waypoint`: the waypoints that the control plane knows, and the processes of one."""

from __future__ import annotations

import click

from agent.cli.options import Reading, read_options
from agent.cli.render import Column
from agent.cli.views.pages import Row
from agent.cli.views.waypoints import IN_STEP, client_rows, refusal_of, state_of, waypoint_rows
from control.kit.choices import absent
from control.kit.command import PlainGroup
from control.kit.errors import ConfigError

COLUMNS = (
    Column("NAMESPACE", "namespace"),
    Column("WAYPOINT", "name"),
    Column("PROCESSES", "processes"),
    Column("SERVICES", "services"),
    Column("STATE", "state"),
    Column("RESOURCES", "resources", wide=True),
    Column("ACCOUNT", "account", wide=True),
)
PROCESS_COLUMNS = (
    Column("POD", "pod"),
    Column("NODE", "node"),
    Column("SINCE", "since"),
    Column("STATE", "state"),
    Column("REFUSED", "nacks"),
    Column("PEER", "peer", wide=True),
    Column("PENDING", "pending", wide=True),
)


@click.group(cls=PlainGroup)
def waypoint() -> None:
    """List waypoints; show the processes of one.

    Example: tulle waypoint status shop/waypoint
    """


@waypoint.command("list")
@read_options()
def list_command(ask: Reading) -> None:
    """List waypoints.

    They are Gateways of the class tulle-waypoint or istio-waypoint. PROCESSES follow the control
    plane now; SERVICES are those that it stands before.

    Example: tulle waypoint list -n shop
    """

    def rows() -> list[Row]:
        mesh = ask.read("control")
        return [row for row in waypoint_rows(mesh) if ask.wanted.admits(mesh, row)]

    ask.show(rows, COLUMNS, "no waypoints")


@waypoint.command()
@click.argument("gateway", metavar="NAMESPACE/NAME")
@read_options(namespaced=False)
def status(ask: Reading, gateway: str) -> None:
    """Show the processes of a waypoint.

    And whether each has all that it should. Exits 1 unless there is one and all are in step.

    Example: tulle waypoint status shop/waypoint
    """
    mesh = ask.read("control")
    pages = {
        f"{each['namespace']}/{each['name']}": each for each in mesh.control.get("waypoints") or []
    }
    page = pages.get(gateway)
    if page is None:
        raise ConfigError(absent("waypoint", gateway, pages))
    ask.show(lambda: list(client_rows(mesh, page)), PROCESS_COLUMNS, "no process follows it")
    if refusal := refusal_of(mesh, page):
        click.echo(f"last refused: {refusal}", err=True)
    if state_of(page) != IN_STEP:
        click.get_current_context().exit(1)
