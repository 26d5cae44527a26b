"""`tulle`: names the verbs and loads the file of the one that was asked for, and only that."""

from __future__ import annotations

import sys
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path

import click

from control.kit.errors import MeshError

RUN_DIR = "/run/tulle"

# verb → (module, attribute, one line of help); the modules are slow to load, so it stands here
VERBS = {
    "check": (
        "agent.cli.check",
        "check",
        "Say whether this host and its mesh are fit, and why not.",
    ),
    "status": ("agent.cli.status", "status", "Show the mesh's parts, namespaces and pods."),
    "workloads": ("agent.cli.workloads", "workloads", "List the workloads that the tunnels know."),
    "services": ("agent.cli.services", "services", "List services and their endpoints."),
    "policies": ("agent.cli.policies", "policies", "List the policies in force."),
    "certificates": ("agent.cli.certificates", "certificates", "List certificates and their ends."),
    "connections": ("agent.cli.connections", "connections", "List open connections."),
    "maps": ("agent.cli.maps", "maps", "Show how full the kernel's tables and rings are."),
    "namespace": ("agent.cli.namespace", "namespace", "List, add and remove namespaces."),
    "log": ("agent.cli.log", "log", "Read and set log levels."),
    "dump": ("agent.cli.dump", "dump", "Save everything the mesh knows about itself."),
    "lab": ("agent.lab.verbs", "lab", "Run nodes and pods on this host."),
    "version": ("agent.cli.version", "version", "Print versions."),
    "completion": ("agent.cli.completion", "completion", "Print the shell completion script."),
}

EXIT_FAILED, EXIT_USAGE, EXIT_INTERRUPTED = 1, 2, 130
_COULD_NOT_TELL = frozenset({"config", "admin"})  # wrong input, or nobody there to ask


class LazyGroup(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        module, attribute, _ = VERBS[cmd_name]
        found = getattr(import_module(module), attribute)
        assert isinstance(found, click.Command)
        return found

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as exc:
            near = get_close_matches(args[0], VERBS, 1)
            if near:
                raise click.UsageError(f"{exc.message} Did you mean {near[0]!r}?", ctx) from exc
            raise

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, _, line) in VERBS.items()])


@click.command(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Example: tulle lab up DIR, then tulle status",
)
@click.option(
    "--run-dir",
    envvar="TULLE_RUN_DIR",
    default=RUN_DIR,
    show_default=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Where the mesh's admin sockets are.",
)
@click.version_option(package_name="tulle", message="%(prog)s %(version)s")
@click.pass_context
def tulle(ctx: click.Context, run_dir: Path) -> None:
    """Inspect and operate a Tulle mesh. Data goes to stdout, talk to stderr.

    Exit codes: 0 success, 1 failed or denied, 2 usage or could not tell.
    """
    ctx.obj = run_dir


def main() -> None:
    """The console script. A MeshError is the operator's to read, never a traceback."""
    try:
        code = tulle.main(standalone_mode=False, prog_name="tulle")
        sys.exit(code if isinstance(code, int) else 0)
    except click.ClickException as exc:
        exc.show()
        sys.exit(EXIT_USAGE)
    except click.exceptions.Exit as exc:
        sys.exit(exc.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        sys.exit(EXIT_INTERRUPTED)
    except BrokenPipeError:
        sys.stderr.close()  # `tulle … | head` is no error, and nobody reads the rest
        sys.exit(0)
    except PermissionError as exc:
        click.echo(f"error: {exc.filename or 'the kernel'}: {exc.strerror} (try as root)", err=True)
        sys.exit(EXIT_USAGE)
    except MeshError as exc:
        click.echo(f"error: {exc}", err=True)
        sys.exit(EXIT_USAGE if exc.reason in _COULD_NOT_TELL else EXIT_FAILED)


if __name__ == "__main__":
    main()
