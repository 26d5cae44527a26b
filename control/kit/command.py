"""Commands whose complaints about the command line have the style of all other errors.

One line `error: …` and one that says where to read on, on standard error; exit code 2.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from control.kit.lazy import lazy
from control.kit.terminal import Terminal

if TYPE_CHECKING:
    import difflib
else:
    difflib = lazy("difflib")

EXIT_USAGE, EXIT_INTERRUPTED = 2, 130


# Older versions of click print the help themselves.
_HELP: Any = getattr(click.exceptions, "NoArgsIsHelpError", ())


def complain(exc: click.ClickException) -> None:
    """Print a complaint of click's in our style; its help, where a command was left out."""
    if isinstance(exc, _HELP):
        click.echo(exc.format_message(), err=True)
        return
    text = " ".join(exc.format_message().split()).removesuffix(".")
    click.echo(f"error: {text[:1].lower()}{text[1:]}", err=True)
    context = getattr(exc, "ctx", None)
    if isinstance(exc, click.UsageError) and context is not None:
        click.echo(f"try: {context.command_path} {context.help_option_names[0]}", err=True)


def meant(exc: click.UsageError, word: str, known: Sequence[str]) -> click.UsageError:
    """The same complaint, with the command that was probably meant."""
    near = difflib.get_close_matches(word, known, 1)
    if not near or "Did you mean" in exc.message:  # later versions of click say it themselves
        return exc
    return click.UsageError(f"{exc.message} Did you mean {near[0]!r}?", exc.ctx)


class PlainCommand(click.Command):
    """A program, or one of its commands."""

    def make_context(self, *args: Any, **extra: Any) -> click.Context:
        """As click's, which prints help and version meanwhile: to a full disk, one line and 2."""
        with Terminal() as terminal:
            try:
                return super().make_context(*args, **extra)
            except click.exceptions.Exit:
                if lost := terminal.failure():
                    click.echo(f"error: standard output: {lost}", err=True)
                    raise click.exceptions.Exit(EXIT_USAGE) from None
                raise

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As click's, but a word that does not belong there comes before options that lack."""
        given = list(args)
        try:
            return super().parse_args(ctx, args)
        except click.MissingParameter as exc:
            _, rest, _ = self.make_parser(ctx).parse_args(given)
            if rest and not ctx.resilient_parsing:
                self.refuse(ctx, rest, exc)
            raise

    def refuse(self, ctx: click.Context, rest: list[str], cause: click.UsageError) -> None:
        """Raise a complaint of the words that are no options, if there is one."""
        words = " ".join(rest)
        raise click.UsageError(f"Got unexpected extra argument ({words})", ctx) from cause

    def main(  # type: ignore[override]  # click has one signature for each mode
        self, args: Sequence[str] | None = None, *, standalone_mode: bool = True, **extra: Any
    ) -> Any:
        if not standalone_mode:
            return super().main(args, standalone_mode=False, **extra)
        try:
            code = super().main(args, standalone_mode=False, **extra)
        except click.ClickException as exc:
            complain(exc)
            code = exc.exit_code
        except (click.Abort, KeyboardInterrupt):
            click.echo("interrupted", err=True)
            code = EXIT_INTERRUPTED
        sys.exit(code if isinstance(code, int) else 0)


class PlainGroup(PlainCommand, click.Group):
    """A program, or a command, that has commands."""

    command_class = PlainCommand

    def refuse(self, ctx: click.Context, rest: list[str], cause: click.UsageError) -> None:
        try:
            self.resolve_command(ctx, rest)
        except click.UsageError as exc:
            raise exc from cause

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as exc:
            raise meant(exc, args[0], self.list_commands(ctx)) from exc
