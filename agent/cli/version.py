"""`tulle version`: versions of this command and of every process that answers."""

from __future__ import annotations

import click

from agent.cli import health
from agent.cli.options import Reading, read_options
from agent.cli.render import Column
from agent.fetch import FetchError
from control.kit.version import version as installed

COLUMNS = (
    Column("COMPONENT", "component"),
    Column("NODE", "node"),
    Column("VERSION", "version"),
    Column("COMPILED", "compiled"),
)


@click.command()
@click.option("--client", is_flag=True, help="This command only.")
@read_options(namespaced=False)
def version(ask: Reading, client: bool) -> None:
    """Print versions. Exits 2 when a process does not answer.

    Example: tulle version -o json
    """

    def rows() -> list[dict[str, object]]:
        client_row = {"component": "client", "node": "", "name": "client", "compiled": None}
        own: list[dict[str, object]] = [{**client_row, "version": installed()}]
        if client:
            return own
        try:
            found = ask.read("agent", "ztunnel", "control")
        except FetchError as exc:  # no mesh here: the client is all there is
            click.echo(f"warning: {exc}", err=True)
            return own
        except PermissionError as exc:
            click.echo(f"warning: {exc.filename}: {exc.strerror} (try as root)", err=True)
            ask.missing[:] = ["the mesh on this host"]
            return own
        keys = ("component", "node", "name", "version", "compiled")
        return own + [{key: row[key] for key in keys} for row in health.components(found)]

    ask.show(rows, COLUMNS)
