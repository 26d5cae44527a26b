"""`tulle lab label`, `apply` and `delete`: changes to the lab's objects."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from agent.cli.manifests import read_text, split
from agent.cli.mesh import name_of_file
from agent.cli.render import cell
from agent.fetch import FetchError
from agent.lab import changes, reception
from agent.lab.lab import Lab
from agent.lab.manifests import Manifests
from agent.lab.verbs.context import reporting_lab_of, split_pod
from control.kit.errors import ConfigError

EXIT_UNKNOWN = 2  # the control plane could not be asked


@click.command()
@click.argument("kind", type=click.Choice(["namespace", "service", "pod"]))
@click.argument("name")
@click.argument("labels", nargs=-1, required=True)
@click.option("-n", "--namespace", metavar="NAME", default="default", show_default=True)
@click.pass_context
def label(
    ctx: click.Context, kind: str, name: str, labels: tuple[str, ...], namespace: str
) -> None:
    """Set (key=value) or remove (key-) labels of a namespace, a service or a pod.

    The mesh sees the change at once.

    Example: tulle lab label service -n shop ratings istio.io/use-waypoint=waypoint
    """
    if kind != "namespace":
        namespace, name = split_pod(namespace, name)
    lab = reporting_lab_of(ctx)
    # Only such a label can be wrong, and that is worth a wait for the control plane's word.
    is_for_mesh = any("io/" in text for text in labels) and not lab.store.load().unmeshed
    before = _control_status(lab) if is_for_mesh else {}
    done = changes.label(lab, kind.capitalize(), namespace, name, labels)
    for key in done.absent:
        click.echo(f"warning: {done.document.ref} has no label {key}", err=True)
    click.echo(f"{done.document.ref} {'labelled' if done.changed else changes.UNCHANGED}")
    if is_for_mesh and done.changed:
        where = lab.manifests_folder
        source = done.document.text, where
        ctx.exit(_show_verdict(lab, before, source, changed=True))


@click.command()
@click.option(
    "-f",
    "--file",
    "path",
    required=True,
    type=click.Path(path_type=Path),
    help="Manifests to apply; `-` for standard input.",
)
@click.pass_context
def apply(ctx: click.Context, path: Path) -> None:
    """Add or replace the objects of a file.

    Exits 1 when the control plane rejects an object, 2 when it cannot be asked. Notes tell what is
    enforced otherwise than it is written, such as a rule that needs layer 7. A new Pod states
    its node and its command in the annotations tulle.io/lab-node and tulle.io/lab-command.

    Example: tulle lab apply -f strict.yaml
    """
    lab, text = reporting_lab_of(ctx), _text(path)
    before = None if lab.store.load().unmeshed else _control_status(lab)
    lines = changes.apply(lab, text, name_of_file(path))
    for line in lines:
        click.echo(line)
    for name in Manifests.load(lab.manifests_folder).namespaces_missing(
        {document.ref.namespace for document in split(text, name_of_file(path))}
    ):
        click.echo(f"warning: no namespace {name} in this lab, and no pod in it", err=True)
    if before is not None:
        changed = not all(line.endswith(changes.UNCHANGED) for line in lines)
        ctx.exit(_show_verdict(lab, before, (text, path), changed))


def _control_status(lab: Lab) -> reception.Status:
    """Empty when the control plane does not answer: it reads the change when it is back."""
    try:
        return reception.status(lab)
    except FetchError:
        return {}


def _show_verdict(
    lab: Lab, before: reception.Status, source: tuple[str, Path], changed: bool
) -> int:
    """Print the control plane's verdict on standard error; the exit code."""
    text, path = source
    where = name_of_file(path)
    documents = split(text, where)
    try:
        if not before:
            raise FetchError("it does not answer")
        now = reception.wait(lab, before, documents) if changed else before
    except FetchError as exc:
        click.echo(f"warning: written, but the control plane cannot be asked: {exc}", err=True)
        return EXIT_UNKNOWN
    working = Manifests.load(lab.manifests_folder)
    verdict = reception.verdict(now, documents, working, where)
    for line in verdict.ignored:
        click.echo(f"warning: {line}", err=True)
    for line in verdict.noted:
        click.echo(f"note: {cell(line)}", err=True)
    for line in verdict.rejected:
        click.echo(f"error: {cell(line)}", err=True)
    return 1 if verdict.rejected else 0


@click.command()
@click.option(
    "-f",
    "--file",
    "path",
    type=click.Path(path_type=Path),
    help="Manifests to delete; `-` for standard input.",
)
@click.option("-n", "--namespace", metavar="NAME", default="default", show_default=True)
@click.argument("target", nargs=-1, metavar="[KIND NAME]")
@click.pass_context
def delete(ctx: click.Context, path: Path | None, namespace: str, target: tuple[str, ...]) -> None:
    """Delete the objects of a file, or one object.

    Exits 1 when one of them does not exist.

    Example: tulle lab delete peerauthentication default -n istio-system
    """
    if len(target) == 1:
        target = tuple(target[0].split("/", 1))  # KIND/NAME, as kubectl allows too
    if (path is None) == (len(target) != 2):
        raise click.UsageError("give -f FILE or KIND NAME")
    lab = reporting_lab_of(ctx)
    missing: list[str] = []
    if path is not None:
        lines, missing = changes.delete_file(lab, _text(path), name_of_file(path))
    else:
        lines = changes.delete(lab, target[0], namespace, target[1])
    for line in lines:
        click.echo(line)
    for line in missing:
        click.echo(f"error: {line}", err=True)
    ctx.exit(1 if missing else 0)


def _text(path: Path) -> str:
    if str(path) != "-":
        return read_text(path)
    try:
        return sys.stdin.read()
    except UnicodeDecodeError as exc:
        raise ConfigError("standard input: not UTF-8 text") from exc
