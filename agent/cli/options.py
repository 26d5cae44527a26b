"""The options of every read command, as one decorator."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from agent.cli import mesh
from agent.cli.cluster.choice import chosen, cluster_options
from agent.cli.mesh import MeshDump, MeshSource
from agent.cli.render import Column, Output, output_options, show
from agent.cli.selector import Requirement, SelectorError, parse
from agent.cli.views.pages import Filter, namespace_names
from agent.fetch import TIMEOUT_S
from control.kit.choices import absent
from control.kit.errors import ConfigError
from control.kit.flags import Duration

ELSEWHERE = "the control plane is on another host: what only it knows is not shown"
timeout_option = click.option(
    "--timeout",
    type=Duration(0.1, 3600),
    default=f"{TIMEOUT_S:.0f}s",
    show_default=True,
    help="Time to wait for a page (5, 500ms, 1m); 2s for a sign of life.",
)
EXIT_UNKNOWN = 2  # usage, or could not tell


@dataclass(frozen=True, slots=True)
class Reading:
    """The options of a read command: source, filter and output."""

    source: MeshSource
    wanted: Filter
    out: Output
    missing: list[str] = field(default_factory=list)  # processes whose answer the rows lack

    def read(self, *needed: str, fallback: Collection[str] = ()) -> MeshDump:
        """The mesh; warns on standard error about processes that did not answer.

        Without an answer to a `needed` part the command shows the rest and exits 2; a `fallback`
        is only asked.
        """
        parts = {*needed, *(("control", "labels") if self.wanted.labels else ())}
        asked = {*parts, *fallback, *(("control",) if self.wanted.namespace else ())}
        found = mesh.read(self.source, asked)
        for error in found.errors:
            click.echo(f"warning: {error}", err=True)
        if found.foreign and "ztunnel" in needed and "agent" not in needed:
            whose = ", ".join(f"ztunnel-{node}" for node in found.foreign)
            click.echo(f"note: of another make, and without a page here: {whose}", err=True)
        if "control" in parts and not found.control and "control" not in found.away:
            click.echo(f"warning: {ELSEWHERE}", err=True)
        self.missing[:] = found.missing(parts)
        self._expect_namespace(found)
        if self.wanted.labels and not found.labels:
            raise ConfigError("-l: labels are unknown without the control plane's manifests")
        return found

    def show(
        self, fetch: Callable[[], Any], columns: Sequence[Column], empty: str = "nothing found"
    ) -> None:
        """`render.show`; an empty answer says so if not all have answered."""

        def words() -> str:
            return f"{empty}, as far as was heard" if self.missing else empty

        show(self.out, fetch, columns, words)

    def _expect_namespace(self, found: MeshDump) -> None:
        wanted, known = self.wanted.namespace, namespace_names(found)
        if wanted and wanted not in known:
            raise ConfigError(absent("namespace", wanted, known))


def read_options(
    namespaced: bool = True, labelled: bool = False
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """-n and -A, -l, --node, -f, --timeout and the output options, given as `ask`."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        @click.pass_context
        @functools.wraps(command)
        def wrapped(ctx: click.Context, *args: Any, **kwargs: Any) -> Any:
            ask = _reading(ctx, kwargs)
            result = command(*args, ask=ask, **kwargs)
            tell_incomplete(ctx, ask.missing)
            return result

        chosen = _common() + (_namespaced() if namespaced else [])
        for option in reversed(chosen + (_labelled() if labelled else [])):
            wrapped = option(wrapped)
        return output_options(wrapped)

    return decorate


def tell_incomplete(ctx: click.Context, missing: Collection[str]) -> None:
    """Exit 2 when an answer was missing: what was shown is not all there is."""
    if missing:
        click.echo(f"error: incomplete, without the answer of {', '.join(missing)}", err=True)
        ctx.exit(EXIT_UNKNOWN)


def _reading(ctx: click.Context, kwargs: dict[str, Any]) -> Reading:
    namespace, everywhere = kwargs.pop("namespace", None), kwargs.pop("all_namespaces", False)
    labels = parse_selector(kwargs.pop("labels", ()))
    wanted = Filter("" if everywhere else namespace or "", labels)
    node, timeout_s = kwargs.pop("node") or "", kwargs.pop("timeout")
    file, run_dir = kwargs.pop("dump_file"), Path(ctx.find_root().obj)
    source = MeshSource(run_dir, file, node, timeout_s, None if file else chosen(ctx))
    return Reading(source, wanted, kwargs.pop("out"))


def parse_selector(texts: Iterable[str]) -> tuple[Requirement, ...]:
    try:
        return parse(texts)
    except SelectorError as exc:
        raise click.UsageError(f"-l {exc}") from exc


def _common() -> list[Callable[[Any], Any]]:
    return [
        cluster_options,
        click.option("--node", metavar="NAME", help="Ask this node only."),
        click.option(
            "-f",
            "--file",
            "dump_file",
            type=click.Path(path_type=Path),
            help="Read a file of `tulle dump` instead.",
        ),
        timeout_option,
    ]


def _namespaced() -> list[Callable[[Any], Any]]:
    return [
        click.option("-n", "--namespace", metavar="NAME", help="Only this namespace."),
        click.option("-A", "--all-namespaces", is_flag=True, help="All namespaces (the default)."),
    ]


def _labelled() -> list[Callable[[Any], Any]]:
    return [
        click.option(
            "-l",
            "--selector",
            "labels",
            multiple=True,
            help="Only pods with these labels: app=web,tier!=test,canary,!old",
        ),
    ]
