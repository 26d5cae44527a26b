"""`tulle`: the table of verbs. Only the module of the verb in use is loaded.

The lab stands on the CLI and not the other way round: an image may leave `agent/lab` out, and then
`lab` is no verb.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

import click

from control.kit.command import EXIT_INTERRUPTED, EXIT_USAGE, complain
from control.kit.errors import MeshError, os_error_text
from control.kit.lazy_group import LazyGroup
from control.kit.terminal import Terminal
from control.kit.version import version

RUN_DIR = "/run/tulle"

VERBS = {
    "install": ("agent.cli.install", "install", "Install Tulle into a Kubernetes cluster."),
    "upgrade": ("agent.cli.install", "upgrade", "Upgrade the Tulle of a cluster."),
    "uninstall": ("agent.cli.uninstall", "uninstall", "Take Tulle out of a cluster."),
    "check": (
        "agent.cli.check",
        "check",
        "Check this host and its mesh.",
    ),
    "status": ("agent.cli.status", "status", "Show the mesh's parts, namespaces and pods."),
    "workloads": ("agent.cli.workloads", "workloads", "List the workloads that the ztunnels know."),
    "services": ("agent.cli.services", "services", "List services and their endpoints."),
    "routes": ("agent.cli.routes", "routes", "List waypoints' routes; explain a request."),
    "waypoint": ("agent.cli.waypoint", "waypoint", "List waypoints; show one's processes."),
    "policies": ("agent.cli.policies", "policies", "List the policies in force."),
    "certificates": (
        "agent.cli.certificates",
        "certificates",
        "List certificates and expiry.",
    ),
    "connections": ("agent.cli.connections", "connections", "List open connections."),
    "refusals": ("agent.cli.refusals", "refusals", "List connections that failed, and why."),
    "top": ("agent.cli.top", "top", "List who uses the ztunnels most."),
    "maps": ("agent.cli.maps", "maps", "Show the fill level of kernel tables and rings."),
    "namespace": ("agent.cli.namespace", "namespace", "List, add and remove namespaces."),
    "log": ("agent.cli.log", "log", "Read and set log levels."),
    "dump": ("agent.cli.dump", "dump", "Save all that the mesh says about itself."),
    "lab": ("agent.lab.verbs.group", "lab", "Run nodes and pods on this host."),
    "version": ("agent.cli.version", "version", "Print versions."),
    "completion": ("agent.cli.completion", "completion", "Print a shell's completion script."),
}

EXIT_FAILED = 1
_COULD_NOT_TELL = frozenset({"config", "admin", "kube_access"})  # wrong input, or no process to ask


def installed_verbs() -> list[str]:
    """The verbs of this installation: all but `lab` where the lab was left out."""
    has_lab = find_spec("agent.lab") is not None
    return [verb for verb in VERBS if verb != "lab" or has_lab]


class Verbs(LazyGroup):
    """The verbs as a click group."""

    verbs = VERBS

    def list_commands(self, ctx: click.Context) -> list[str]:
        return installed_verbs()

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in VERBS and cmd_name not in installed_verbs():
            raise click.UsageError("the lab is not installed here: this image has no agent.lab")
        return super().get_command(ctx, cmd_name)


@click.command(
    cls=Verbs,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Example: tulle status, then tulle check",
)
@click.option(
    "--run-dir",
    envvar="TULLE_RUN_DIR",
    default=RUN_DIR,
    show_default=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of the mesh's admin sockets.",
)
@click.version_option(version(), message="%(prog)s %(version)s")
@click.pass_context
def tulle(ctx: click.Context, run_dir: Path) -> None:
    """Inspect and operate a Tulle mesh. Data goes to stdout, messages to stderr.

    Exit codes: 0 success, 1 failed or denied, 2 usage or could not tell.
    """
    ctx.obj = run_dir


def main(command: click.Command = tulle, words: list[str] | None = None) -> None:
    """Run the console script; `words` stand in for those of the command line."""
    with Terminal() as terminal:
        code = run(command, words)
        if lost := terminal.failure():
            click.echo(f"error: standard output: {lost}", err=True)
            code = EXIT_USAGE
    sys.exit(code)


def run(command: click.Command, words: list[str] | None) -> int:
    """Exit code of a command; the operator reads a MeshError as one line, without a traceback."""
    try:
        code = command.main(words, standalone_mode=False, prog_name="tulle")
        return code if isinstance(code, int) else 0
    except click.ClickException as exc:
        complain(exc)
        return EXIT_USAGE
    except click.exceptions.Exit as exc:
        return exc.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        return EXIT_INTERRUPTED
    except PermissionError as exc:
        click.echo(f"error: {exc.filename or 'the kernel'}: {exc.strerror} (try as root)", err=True)
        return EXIT_USAGE
    except OSError as exc:  # this host's: a full disk, no descriptors, a file that went away
        click.echo(f"error: {os_error_text(exc)}", err=True)
        return EXIT_USAGE
    except MeshError as exc:
        click.echo(f"error: {exc}", err=True)
        return EXIT_USAGE if exc.reason in _COULD_NOT_TELL else EXIT_FAILED


if __name__ == "__main__":
    main()
