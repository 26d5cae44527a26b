"""`tulle lab exec`, `status` and `logs`: a look at the running lab."""

from __future__ import annotations

import sys
import time
from typing import Any

import click

from agent.cli.render import Column, Output, output_options, render, show
from agent.lab import report
from agent.lab.verbs.context import lab_of, split_pod
from control.kit.terminal import reader_gone

FOLLOW_POLL_S = 0.2
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


@click.command("exec", context_settings={"allow_interspersed_args": False})
@click.option("-n", "--namespace", metavar="NAME", default="default", show_default=True)
@click.argument("pod")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@click.pass_context
def exec_command(ctx: click.Context, namespace: str, pod: str, command: tuple[str, ...]) -> None:
    """Run COMMAND in POD and exit with its exit code.

    Example: tulle lab exec -n shop shopper -- curl -s http://ratings/
    """
    namespace, pod = split_pod(namespace, pod)
    if command[0] == "--":
        command = command[1:]
    if not command:
        raise click.UsageError("which command?")
    ctx.exit(lab_of(ctx).exec(namespace, pod, command))


@click.command()
@output_options
@click.pass_context
def status(ctx: click.Context, out: Output) -> None:
    """Show the lab's processes and pods.

    Example: tulle lab status -o wide
    """

    def as_text(found: dict[str, Any]) -> str:
        parts = [render(found["processes"], PROCESS_COLUMNS, out)] if found["processes"] else []
        return "\n".join([*parts, render(found["pods"], POD_COLUMNS, out)])

    def fetch() -> dict[str, Any]:
        return report.status(lab_of(ctx))

    if out.format == "name":
        show(out, lambda: fetch()["pods"], POD_COLUMNS)
    else:
        show(out, fetch, POD_COLUMNS, as_text=None if out.format in ("json", "yaml") else as_text)


@click.command()
@click.argument("name")
@click.option("-n", "--namespace", metavar="NAME", default="default", show_default=True)
@click.option("-f", "--follow", is_flag=True, help="Keep printing what is appended.")
@click.pass_context
def logs(ctx: click.Context, name: str, namespace: str, follow: bool) -> None:
    """Print the log of a pod or of a process.

    The processes are control, agent-NODE and ztunnel-NODE.

    Example: tulle lab logs ztunnel-n1 -f
    """
    path = report.log_path(lab_of(ctx), *split_pod(namespace, name))
    with open(path, "rb") as file:
        while True:
            data = file.read(65536)
            if data:
                sys.stdout.buffer.write(data)
                sys.stdout.buffer.flush()
            if reader_gone() or not (data or follow):
                return
            if data:
                continue
            time.sleep(FOLLOW_POLL_S)
