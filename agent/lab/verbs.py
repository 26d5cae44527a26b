"""`tulle lab …`: reads arguments and shows results; agent.lab does the work."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import click

from agent.cli.manifests import Manifests, split
from agent.cli.render import Column, Output, cell, output_options, render, show
from agent.fetch import FetchError
from agent.lab import reception
from agent.lab.lab import Lab, Options
from control.kit.errors import ConfigError, MeshError

EXIT_UNKNOWN = 2  # could not tell

POD_COLUMNS = (
    Column("NAMESPACE", "namespace"),
    Column("POD", "name"),
    Column("NODE", "node"),
    Column("ADDRESS", "address"),
    Column("STATE", "state"),
    Column("PID", "pid"),
    Column("RSS-MIB", "rss_mib"),
    Column("ADDRESS-V6", "address_v6", wide=True),
    Column("NETNS", "netns", wide=True),
    Column("UID", "uid", wide=True),
)
PROCESS_COLUMNS = (
    Column("PROCESS", "name"),
    Column("NODE", "node"),
    Column("STATE", "state"),
    Column("PID", "pid"),
    Column("RSS-MIB", "rss_mib"),
    Column("LOG", "log", wide=True),
)


def make(ctx: click.Context) -> Lab:
    """The lab of --run-dir, which tells its progress on standard error."""
    started = time.monotonic()

    def progress(text: str) -> None:
        click.echo(f"[{time.monotonic() - started:5.1f} s] {text}", err=True)

    return Lab(Path(ctx.obj), progress)


def _interrupt(number: int, _: FrameType | None) -> None:
    raise KeyboardInterrupt


@click.group()
def lab() -> None:
    """Nodes and pods out of network namespaces on this host (as root).

    Example: tulle lab up DIR; tulle lab exec -n shop shopper -- curl http://ratings/
    """


@lab.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--nodes", type=click.IntRange(1), help="Spread the pods over this many nodes n1 ….")
@click.option(
    "--workers",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Worker processes of each ztunnel.",
)
@click.option("--unmeshed", is_flag=True, help="Only nodes and pods: no control plane, no mesh.")
@click.option("--keep", is_flag=True, help="Leave what there is when it fails.")
@click.pass_context
def up(
    ctx: click.Context, folder: Path, nodes: int | None, workers: int, unmeshed: bool, keep: bool
) -> None:
    """Bring up the lab in FOLDER.

    It holds manifests (*.yaml) and lab.yaml: nodes, which pod on which, what each runs.

    Example: tulle lab up agent/lab/shop
    """
    if os.geteuid() != 0:
        raise ConfigError("a lab needs root: it makes network namespaces")
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)  # taken down as after Ctrl-C
    found, had_one = make(ctx), Lab(Path(ctx.obj)).store.exists()
    try:
        found.up(folder, Options(nodes or 0, workers, unmeshed, keep))
    except (KeyboardInterrupt, MeshError):
        if found.store.exists() and not had_one:
            click.echo("what was built is still there; remove it: tulle lab down", err=True)
        raise
    click.echo("the lab is up; take it down: tulle lab down", err=True)


@lab.command()
@click.pass_context
def down(ctx: click.Context) -> None:
    """Remove the lab and everything it made. Safe to repeat.

    Example: tulle lab down
    """
    if not make(ctx).down():
        click.echo("no lab is up", err=True)


@lab.command("exec", context_settings={"allow_interspersed_args": False})
@click.option("-n", "--namespace", default="default", show_default=True)
@click.argument("pod")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@click.pass_context
def exec_command(ctx: click.Context, namespace: str, pod: str, command: tuple[str, ...]) -> None:
    """Run COMMAND in POD.

    Exits as the command does.

    Example: tulle lab exec -n shop shopper -- curl -s http://ratings/
    """
    namespace, pod = split_pod(namespace, pod)
    if command[0] == "--":
        command = command[1:]
    if not command:
        raise click.UsageError("which command?")
    ctx.exit(Lab(Path(ctx.obj)).exec(namespace, pod, command))


@lab.command()
@output_options
@click.pass_context
def status(ctx: click.Context, out: Output) -> None:
    """Show the lab's processes and pods.

    Example: tulle lab status -o wide
    """
    from agent.lab import report

    def as_text(found: dict[str, Any]) -> str:
        parts = [render(found["processes"], PROCESS_COLUMNS, out)] if found["processes"] else []
        return "\n".join([*parts, render(found["pods"], POD_COLUMNS, out)])

    def fetch() -> dict[str, Any]:
        return report.status(Lab(Path(ctx.obj)))

    if out.format == "name":
        show(out, lambda: fetch()["pods"], POD_COLUMNS)
    else:
        show(out, fetch, POD_COLUMNS, as_text=None if out.format in ("json", "yaml") else as_text)


@lab.command()
@click.argument("kind", type=click.Choice(["namespace", "pod"]))
@click.argument("name")
@click.argument("labels", nargs=-1, required=True)
@click.option("-n", "--namespace", default="default", show_default=True)
@click.pass_context
def label(
    ctx: click.Context, kind: str, name: str, labels: tuple[str, ...], namespace: str
) -> None:
    """Set (key=value) or remove (key-) labels.

    The labels of a namespace or a pod; the mesh hears of it at once.

    Example: tulle lab label namespace shop tulle.io/dataplane-mode=ambient
    """
    from agent.lab import changes

    if kind == "pod":
        namespace, name = split_pod(namespace, name)
    changes.label(make(ctx), kind.capitalize(), namespace, name, labels)
    click.echo(
        f"{kind.capitalize()} {name if kind == 'namespace' else f'{namespace}/{name}'} labelled"
    )


@lab.command()
@click.option(
    "-f",
    "--file",
    "path",
    required=True,
    type=click.Path(path_type=Path),
    help="The manifests; `-` for standard input.",
)
@click.pass_context
def apply(ctx: click.Context, path: Path) -> None:
    """Add or replace objects from a file.

    Exits 1 when the control plane does not understand an object, 2 when it cannot be asked.
    A new Pod says in annotations tulle.io/lab-node and tulle.io/lab-command where and what to
    run.

    Example: tulle lab apply -f strict.yaml
    """
    from agent.lab import changes

    found, text = make(ctx), _text(path)
    before = None if found.store.load().unmeshed else _control_status(found)
    lines = changes.apply(found, text, str(path))
    for line in lines:
        click.echo(line)
    if before is not None:
        changed = not all(line.endswith(changes.UNCHANGED) for line in lines)
        ctx.exit(_tell_verdict(found, before, (text, path), changed))


def _control_status(found: Lab) -> reception.Status:
    """Empty when the control plane does not answer: what is applied is read when it is back."""
    try:
        return reception.status(found)
    except FetchError:
        return {}


def _tell_verdict(
    found: Lab, before: reception.Status, source: tuple[str, Path], changed: bool
) -> int:
    """What the control plane makes of it, on standard error; the exit code."""
    text, path = source
    where = "<stdin>" if str(path) == "-" else str(path)
    documents = split(text, where)
    try:
        if not before:
            raise FetchError("it does not answer")
        now = reception.wait(found, before, documents) if changed else before
    except FetchError as exc:
        click.echo(f"warning: written, but the control plane cannot be asked: {exc}", err=True)
        return EXIT_UNKNOWN
    working = Manifests.load(found.manifests_folder)
    verdict = reception.verdict(now, documents, working, where)
    for line in verdict.ignored:
        click.echo(f"warning: {line}", err=True)
    for line in verdict.rejected:
        click.echo(f"error: {cell(line)}", err=True)
    return 1 if verdict.rejected else 0


@lab.command()
@click.option(
    "-f",
    "--file",
    "path",
    type=click.Path(path_type=Path),
    help="The manifests; `-` for standard input.",
)
@click.option("-n", "--namespace", default="default", show_default=True)
@click.argument("target", nargs=-1, metavar="[KIND NAME]")
@click.pass_context
def delete(ctx: click.Context, path: Path | None, namespace: str, target: tuple[str, ...]) -> None:
    """Delete the objects of a file, or one.

    Exits 1 when one of them is not there.

    Example: tulle lab delete peerauthentication default -n istio-system
    """
    from agent.lab import changes

    if len(target) == 1:
        target = tuple(target[0].split("/", 1))  # KIND/NAME, as kubectl also has it
    if (path is None) == (len(target) != 2):
        raise click.UsageError("give -f FILE or KIND NAME")
    missing: list[str] = []
    if path is not None:
        lines, missing = changes.delete_file(make(ctx), _text(path), str(path))
    else:
        lines = changes.delete(make(ctx), target[0], namespace, target[1])
    for line in lines:
        click.echo(line)
    for line in missing:
        click.echo(f"error: {line}", err=True)
    ctx.exit(1 if missing else 0)


@lab.command()
@click.argument("name")
@click.option("-n", "--namespace", default="default", show_default=True)
@click.option("-f", "--follow", is_flag=True, help="Go on with what is written later.")
@click.pass_context
def logs(ctx: click.Context, name: str, namespace: str, follow: bool) -> None:
    """Print the log of a pod or a process.

    The processes are control, agent-NODE and ztunnel-NODE.

    Example: tulle lab logs ztunnel-n1 -f
    """
    from agent.lab import report

    path = report.log_path(Lab(Path(ctx.obj)), *split_pod(namespace, name))
    with open(path, "rb") as file:
        while True:
            data = file.read(65536)
            if data:
                sys.stdout.buffer.write(data)
                sys.stdout.buffer.flush()
            elif not follow:
                return
            else:
                time.sleep(0.2)


@lab.command()
@click.argument("what", type=click.Choice(["ztunnel", "agent", "control"]))
@click.argument("node", required=False)
@click.pass_context
def restart(ctx: click.Context, what: str, node: str | None) -> None:
    """Start a process of the mesh anew.

    It is stopped first if it runs. Without NODE, those of all nodes.

    Example: tulle lab restart ztunnel n1
    """
    from agent.lab import changes

    _echo_all(changes.restart(make(ctx), what, node), "started")
    if what == "control":
        click.echo("the nodes connect again within some seconds: tulle status", err=True)


@lab.command()
@click.argument("what", type=click.Choice(["ztunnel", "agent", "control"]))
@click.argument("node", required=False)
@click.pass_context
def stop(ctx: click.Context, what: str, node: str | None) -> None:
    """Stop a process of the mesh (SIGTERM).

    Without NODE, those of all nodes.

    Example: tulle lab stop control
    """
    from agent.lab import changes

    _echo_all(changes.stop(make(ctx), what, node), "stopped")


@lab.command()
@click.argument("what", type=click.Choice(["ztunnel", "agent", "control"]))
@click.argument("node", required=False)
@click.pass_context
def kill(ctx: click.Context, what: str, node: str | None) -> None:
    """Kill a process of the mesh (SIGKILL).

    Its workers too. Without NODE, those of all nodes.

    Example: tulle lab kill ztunnel n1
    """
    from agent.lab import changes

    _echo_all(changes.kill(make(ctx), what, node), "killed")


def _echo_all(names: Sequence[str], done: str) -> None:
    for name in names:
        click.echo(f"{name} {done}")


def split_pod(namespace: str, name: str) -> tuple[str, str]:
    """NAMESPACE/POD says the same as -n NAMESPACE POD."""
    head, slash, tail = name.partition("/")
    return (head, tail) if slash else (namespace, name)


def _text(path: Path) -> str:
    if str(path) == "-":
        return sys.stdin.read()
    try:
        return path.read_text()
    except OSError as exc:
        raise ConfigError(f"{path}: {exc.strerror}") from exc
