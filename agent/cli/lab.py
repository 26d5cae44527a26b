"""`tulle lab …`: reads arguments and shows results; agent.lab does the work."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Any

import click

from agent.cli.render import Column, Output, output_options, render, show
from agent.lab.lab import Lab, Options
from control.kit.errors import ConfigError

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
@click.option("--workers", type=click.IntRange(1), default=1, show_default=True)
@click.option("--unmeshed", is_flag=True, help="Only nodes and pods: no control plane, no mesh.")
@click.option("--keep", is_flag=True, help="Leave what there is when it fails.")
@click.pass_context
def up(
    ctx: click.Context, folder: Path, nodes: int | None, workers: int, unmeshed: bool, keep: bool
) -> None:
    """Bring up the lab in FOLDER: manifests (*.yaml) and lab.yaml.

    Example: tulle lab up agent/lab/shop
    """
    if os.geteuid() != 0:
        raise ConfigError("a lab needs root: it makes network namespaces")
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)  # taken down as after Ctrl-C
    found = make(ctx)
    found.up(folder, Options(nodes or 0, workers, unmeshed, keep))
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
    """Run COMMAND in POD; exits as the command does.

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
    """Set (key=value) or remove (key-) labels of a namespace or pod.

    Example: tulle lab label namespace shop tulle.io/dataplane-mode=ambient
    """
    from agent.lab import changes

    if kind == "pod":
        namespace, name = split_pod(namespace, name)
    changes.label(make(ctx), kind.capitalize(), namespace, name, labels)


@lab.command()
@click.option("-f", "--file", "path", required=True, type=click.Path(path_type=Path))
@click.pass_context
def apply(ctx: click.Context, path: Path) -> None:
    """Add or replace the objects of a file (`-` reads standard input).

    A new Pod says in annotations tulle.io/lab-node and tulle.io/lab-command where and what to run.

    Example: tulle lab apply -f strict.yaml
    """
    from agent.lab import changes

    for line in changes.apply(make(ctx), _text(path), str(path)):
        click.echo(line)


@lab.command()
@click.option("-f", "--file", "path", type=click.Path(path_type=Path))
@click.option("-n", "--namespace", default="default", show_default=True)
@click.argument("target", nargs=-1)
@click.pass_context
def delete(ctx: click.Context, path: Path | None, namespace: str, target: tuple[str, ...]) -> None:
    """Delete the objects of a file, or KIND NAME.

    Example: tulle lab delete peerauthentication default -n istio-system
    """
    from agent.lab import changes

    if (path is None) == (len(target) != 2):
        raise click.UsageError("give -f FILE or KIND NAME")
    if path is not None:
        lines = changes.delete_file(make(ctx), _text(path), str(path))
    else:
        lines = changes.delete(make(ctx), target[0], namespace, target[1])
    for line in lines:
        click.echo(line)


@lab.command()
@click.argument("name")
@click.option("-n", "--namespace", default="default", show_default=True)
@click.option("-f", "--follow", is_flag=True)
@click.pass_context
def logs(ctx: click.Context, name: str, namespace: str, follow: bool) -> None:
    """Print the log of a pod, or of control, agent-NODE or ztunnel-NODE.

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
    """Stop a process of the mesh and start it again (all nodes when NODE is absent).

    Example: tulle lab restart ztunnel n1
    """
    from agent.lab import changes

    changes.restart(make(ctx), what, node)


@lab.command()
@click.argument("what", type=click.Choice(["ztunnel", "agent", "control"]))
@click.argument("node", required=False)
@click.pass_context
def stop(ctx: click.Context, what: str, node: str | None) -> None:
    """Stop a process of the mesh in order (SIGTERM).

    Example: tulle lab stop control
    """
    from agent.lab import changes

    changes.stop(make(ctx), what, node)


@lab.command()
@click.argument("what", type=click.Choice(["ztunnel", "agent", "control"]))
@click.argument("node", required=False)
@click.pass_context
def kill(ctx: click.Context, what: str, node: str | None) -> None:
    """Kill a process of the mesh, workers included (SIGKILL).

    Example: tulle lab kill ztunnel n1
    """
    from agent.lab import changes

    changes.kill(make(ctx), what, node)


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
