"""`tulle namespace`: lists the namespaces in the mesh; adds and removes them by their label."""

from __future__ import annotations

import difflib
import sys
import time
from pathlib import Path

import click

from agent.cli import health, mesh
from agent.cli.cluster.choice import ClusterChoice, chosen, cluster_options
from agent.cli.mesh import MeshDump, MeshSource
from agent.cli.options import Reading, read_options
from agent.cli.render import Column
from agent.cli.views.namespaces import MODE_LABELS, namespace_rows
from agent.cli.views.pages import Filter, agent_pods
from agent.cli.views.traffic import connection_rows
from agent.fetch import FetchError
from control.kit.command import PlainGroup
from control.kit.errors import ConfigError, MeshError
from control.kit.files import replace_text
from control.kit.terminal import is_interactive

LABEL = "tulle.io/dataplane-mode"
SETTLE_S = 5.0  # a healthy node needs far less; a sick one is reported, not waited for
SETTLE_POLL_S = 0.1
# In a cluster each look is a command on every node.
CLUSTER_SETTLE_S, CLUSTER_POLL_S = 20.0, 1.0
COLUMNS = (
    Column("NAMESPACE", "name"),
    Column("MODE", "mode"),
    Column("PODS", "pods"),
    Column("CAPTURED", "captured"),
    Column("UNCAPTURED-CONNS", "uncaptured_connections"),
    Column("POLICIES", "policies"),
)


@click.group(cls=PlainGroup)
def namespace() -> None:
    """List namespaces, add them to the mesh, and remove them.

    Example: tulle namespace add shop
    """


@namespace.command("list")
@read_options(namespaced=False)
def list_command(ask: Reading) -> None:
    """List namespaces with counts of pods and policies.

    UNCAPTURED-CONNS counts connections from before a pod's capture, which stay as they are.

    Example: tulle namespace list
    """
    ask.show(
        lambda: namespace_rows(ask.read("agent", "ztunnel", "control")),
        COLUMNS,
        "no namespaces",
    )


@namespace.command()
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
@cluster_options
@click.pass_context
def add(ctx: click.Context, name: str, yes: bool) -> None:
    """Enrol a namespace and its running pods.

    Sets its label, in the cluster or in the control plane's manifests, and prints how many pods are
    captured.

    Example: tulle namespace add shop
    """
    _change(ctx, name, f"{LABEL}=ambient", yes)


@namespace.command()
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
@cluster_options
@click.pass_context
def remove(ctx: click.Context, name: str, yes: bool) -> None:
    """Take a namespace out of the mesh.

    Says first how many open connections may end.

    Example: tulle namespace remove shop
    """
    _change(ctx, name, f"{LABEL}-", yes)


def _change(ctx: click.Context, name: str, label: str, yes: bool) -> None:
    run_dir, cluster = Path(ctx.find_root().obj), chosen(ctx)
    if cluster is None:
        change(run_dir, name, label, yes)
    else:
        change_in_cluster(MeshSource(run_dir, cluster=cluster), cluster, name, label, yes)


def change_in_cluster(
    source: MeshSource, cluster: ClusterChoice, name: str, label: str, yes: bool
) -> None:
    """Set the label by the API server; ask before connections may end."""
    from agent.cli.cluster import namespaces, session

    if label.endswith("-") and not yes:
        click.echo(cut(mesh.read(source, ("ztunnel",)), name), err=True)
        if is_interactive(sys.stdin) and not _confirmed():
            raise MeshError("nothing was changed")
    is_changed, remarks = session.ask(
        cluster, lambda client: namespaces.change(client, name, label)
    )
    for each in remarks:
        click.echo(each, err=True)
    said = "labelled" if label.endswith("=ambient") else "unlabelled"
    click.echo(f"{said} namespace {name}" if is_changed else f"nothing to change: {name}", err=True)
    click.echo(settled(source, name, enrolling=label.endswith("=ambient")), err=True)


def change(run_dir: Path, name: str, label: str, yes: bool) -> None:
    """Show the difference, ask, and write; in a lab's working copy without asking."""
    found = mesh.read(MeshSource(run_dir), ("control",))
    if not found.control.get("status"):
        raise FetchError(f"the control plane does not answer: {'; '.join(found.errors)}")
    folder = mesh.manifests_folder(found.control)
    if folder is None:
        raise ConfigError(
            "the control plane reads no manifests on this host; "
            f"set the label yourself: {label} on namespace {name}"
        )
    path, old, new = edited(folder, name, label)
    if old == new:
        click.echo(f"nothing to change: {name} in {path}", err=True)
        return
    click.echo(difference(path, old, new), nl=False)
    if label.endswith("-"):
        click.echo(cut(mesh.read(MeshSource(run_dir), ("ztunnel",)), name), err=True)
    is_copy = folder == run_dir / "manifests"  # a lab's: there is nothing to lose
    if not (yes or is_copy or _confirmed()):
        raise MeshError("nothing was written")
    write(path, old, new)
    click.echo(f"changed {path}", err=True)
    source = MeshSource(run_dir)
    click.echo(settled(source, name, enrolling=label.endswith("=ambient")), err=True)


def write(path: Path, old: str, new: str) -> None:
    """Replace the file that `path` leads to, and keep its owner, mode and attributes.

    ConfigError: it was changed meanwhile, is read-only, or cannot be written.
    """
    from agent.cli import manifests

    target = path.resolve()
    if manifests.read_text(target) != old:
        raise ConfigError(f"{path} has changed meanwhile; nothing was written")
    try:
        found = target.stat()
        if not found.st_mode & 0o222:
            raise ConfigError(f"{path} is read-only: change it where it is made")
        replace_text(target, new.encode())
    except OSError as exc:
        raise ConfigError(f"{path}: {exc.strerror}; nothing was written") from exc


def cut(found: MeshDump, name: str) -> str:
    """The connections that leaving the mesh may end, in words."""
    count = len(connection_rows(found, Filter(name)))
    if found.away:
        return f"open connections of {name} are not all known: {', '.join(sorted(found.away))} away"
    if not count:
        return f"no open connection of {name} goes through the mesh"
    return (
        f"may cut {count} open connections, those that last half a minute longer "
        f"(tulle connections -n {name} lists them)"
    )


def _confirmed() -> bool:
    try:
        return click.confirm("write this?", err=True)
    except click.Abort:
        if is_interactive(sys.stdin):
            raise
        raise MeshError("nothing was written: no answer on standard input (see --yes)") from None


def settled(source: MeshSource, name: str, *, enrolling: bool) -> str:
    """Wait for the agents, but not for long; the outcome in words."""
    deadline = time.monotonic() + (CLUSTER_SETTLE_S if source.cluster else SETTLE_S)
    while True:
        found = mesh.read(source, ("agent", "control"))
        done, text = outcome(found, name, enrolling=enrolling)
        if done or time.monotonic() > deadline:
            silent = "; ".join(f"{name} does not answer" for name in sorted(found.away))
            return f"{text}\n{silent}" if silent else text
        time.sleep(CLUSTER_POLL_S if source.cluster else SETTLE_POLL_S)


def outcome(found: MeshDump, name: str, *, enrolling: bool) -> tuple[bool, str]:
    """(the namespace is as wanted, the state of its pods in words)"""
    pods = [pod for pod in found.control.get("pods") or [] if pod["namespace"] == name]
    wanted = {str(pod["name"]) for pod in pods if pod["enrolled"]}
    captured = {
        str(pod["name"])
        for _, pod in agent_pods(found)
        if pod["namespace"] == name and pod["state"] == "captured"
    }
    is_read = bool(wanted) == enrolling or not pods  # the control plane has seen the file
    done = is_read and captured == wanted
    if not enrolling:
        rest = f"; {len(captured)} not yet released" if captured else ""
        return done, f"{name} is out of the mesh{rest}"
    lines = [f"{len(captured & wanted)} of {len(wanted)} pods captured"]
    lines += [
        f"  {row['name']}: {row['state']}, {health.reason_text(row)}"
        for row in health.uncaptured(found)
        if row["namespace"] == name
    ]
    return done, "\n".join(lines)


def edited(folder: Path, name: str, label: str) -> tuple[Path, str, str]:
    """(file, text before, text after) of a namespace's manifest; only its label changes.

    Leaving the mesh removes Istio's label for the same thing, too.
    """
    from agent.cli import labels, manifests

    unread: list[str] = []
    wanted = [label] if label.endswith("=ambient") else [f"{key}-" for key in MODE_LABELS]
    for file in manifests.files(folder):
        try:
            text = manifests.read_text(file)
        except ConfigError as exc:
            unread.append(str(exc))
            continue
        documents, errors = manifests.read_apart(text, str(file))
        unread += errors
        for document in documents:
            places = manifests.places(document.value, manifests.Ref("Namespace", "", name))
            if not places:
                continue
            piece = document.text
            try:
                for one in wanted:
                    piece = labels.edit(piece, labels.parse_change(one), places[0])
            except ConfigError as exc:
                raise ConfigError(f"{file}:{document.line}: Namespace {name}: {exc}") from exc
            end = document.start + len(document.text)
            return file, text, text[: document.start] + piece + text[end:]
    beside = f"; these cannot be read: {'; '.join(unread)}" if unread else ""
    raise ConfigError(f"no Namespace {name} in the manifests below {folder}{beside}")


def difference(path: Path, old: str, new: str) -> str:
    lines = difflib.unified_diff(
        old.splitlines(keepends=True), new.splitlines(keepends=True), str(path), str(path)
    )
    return "".join(line if line.endswith("\n") else line + "\n" for line in lines)
