"""`tulle dump`: all pages of the admin sockets, without secrets, in one file."""

from __future__ import annotations

import json
from pathlib import Path

import click

from agent.cli import mesh
from agent.cli.cluster.choice import chosen, cluster_options
from agent.cli.mesh import MeshSource
from agent.cli.options import tell_incomplete, timeout_option
from agent.cli.redact import redact
from control.kit.errors import ConfigError
from control.kit.files import write_as_asked

PARTS = ("agent", "check", "ztunnel", "control", "logging")
EVERYTHING = (*PARTS, "labels")


@click.command()
@click.option(
    "-o",
    "--output",
    "path",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File to write; `-`, the default, is standard output.",
)
@click.option("--node", metavar="NAME", help="Ask this node only.")
@timeout_option
@click.option("--part", "parts", multiple=True, type=click.Choice(PARTS), help="Only these pages.")
@cluster_options
@click.pass_context
def dump(
    ctx: click.Context, path: Path | None, node: str | None, timeout: float, parts: tuple[str, ...]
) -> None:
    """Save all that the mesh says about itself as JSON, without keys and tokens.

    Every read command can read the file with -f. Exits 2 when a process did not answer; the others
    are saved.

    Example: tulle dump -o mesh.json; tulle connections -f mesh.json
    """
    run_dir = Path(ctx.find_root().obj)
    source = MeshSource(run_dir, None, node or "", timeout, chosen(ctx))
    found = mesh.read(source, parts or EVERYTHING)
    for error in found.errors:
        click.echo(f"warning: {error}", err=True)
    text = json.dumps(redact(found.as_json()), indent=1) + "\n"
    if path is None or str(path) == "-":
        click.echo(text, nl=False)
    else:
        try:
            write_as_asked(path, text.encode(), 0o600)
        except OSError as exc:
            raise ConfigError(f"{path}: {exc.strerror}") from exc
        click.echo(f"saved {len(found.nodes)} nodes to {path}", err=True)
    tell_incomplete(ctx, found.missing(PARTS))
