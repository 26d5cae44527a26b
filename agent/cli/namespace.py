"""`tulle namespace`: which namespaces are in the mesh; adds and removes them by their label."""

from __future__ import annotations

import difflib
from pathlib import Path

import click

from agent.cli import mesh, views
from agent.cli.mesh import Source
from agent.cli.options import Reading, read_options
from agent.cli.render import Column, show
from control.kit.errors import ConfigError, MeshError
from control.kit.files import write_atomic

LABEL = "tulle.io/dataplane-mode"
COLUMNS = (
    Column("NAMESPACE", "name"),
    Column("MODE", "mode"),
    Column("PODS", "pods"),
    Column("CAPTURED", "captured"),
    Column("UNCAPTURED-CONNS", "uncaptured_connections"),
    Column("POLICIES", "policies"),
)


@click.group()
def namespace() -> None:
    """List namespaces and take them in and out of the mesh.

    Example: tulle namespace add shop --yes
    """


@namespace.command("list")
@read_options(namespaced=False)
def list_command(ask: Reading) -> None:
    """List namespaces with their mode and how many of their pods are captured.

    Example: tulle namespace list
    """
    show(
        ask.out,
        lambda: views.namespaces(ask.read("agent", "ztunnel", "control")),
        COLUMNS,
        "no namespaces",
    )


@namespace.command()
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_context
def add(ctx: click.Context, name: str, yes: bool) -> None:
    """Enrol a namespace: sets its label in the control plane's manifests.

    Example: tulle namespace add shop
    """
    change(Path(ctx.find_root().obj), name, f"{LABEL}=ambient", yes)


@namespace.command()
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_context
def remove(ctx: click.Context, name: str, yes: bool) -> None:
    """Take a namespace out of the mesh. Running connections of its pods may end.

    Example: tulle namespace remove shop
    """
    run_dir = Path(ctx.find_root().obj)
    change(run_dir, name, f"{LABEL}-", yes)


def change(run_dir: Path, name: str, label: str, yes: bool) -> None:
    """Show the difference, ask, write. In a lab's working copy there is nothing to ask."""
    found = mesh.read(Source(run_dir), ("control",))
    for error in found.errors:
        click.echo(f"warning: {error}", err=True)
    folder = mesh.manifests_folder(found.control)
    if folder is None:
        raise ConfigError(
            "the control plane reads no folder of manifests on this host; "
            f"set the label yourself: {label} on namespace {name}"
        )
    path, old, new = edited(folder, name, label)
    if old == new:
        click.echo(f"nothing to change: {name} in {path}", err=True)
        return
    click.echo(difference(path, old, new), nl=False)
    lab = folder == run_dir / "manifests"  # a working copy: there is nothing to lose
    if not (yes or lab or click.confirm("write this?", err=True)):
        raise MeshError("nothing was written")
    write_atomic(path, new.encode(), path.stat().st_mode & 0o777)
    click.echo(f"changed {path}", err=True)


def edited(folder: Path, name: str, label: str) -> tuple[Path, str, str]:
    """The file of a namespace, its text before and after. Only that document changes.

    Leaving the mesh also removes the label that Istio has for the same thing.
    """
    from agent.lab import labels, manifests

    for file in sorted([*folder.rglob("*.yaml"), *folder.rglob("*.yml")]):
        text = file.read_text()
        for document in manifests.split(text, str(file)):
            if document.ref == manifests.Ref("Namespace", "", name):
                piece = document.text
                wanted = (
                    [label]
                    if label.endswith("=ambient")
                    else [f"{key}-" for key in views.MODE_LABELS]
                )
                for one in wanted:
                    piece = labels.edit(piece, labels.parse_change(one))
                end = document.start + len(document.text)
                return file, text, text[: document.start] + piece + text[end:]
    raise ConfigError(f"no Namespace {name} in the manifests below {folder}")


def difference(path: Path, old: str, new: str) -> str:
    lines = difflib.unified_diff(
        old.splitlines(keepends=True), new.splitlines(keepends=True), str(path), str(path)
    )
    return "".join(line if line.endswith("\n") else line + "\n" for line in lines)
