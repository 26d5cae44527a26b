"""A program with commands, of which only the module of the one in use is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import ClassVar

import click

from control.kit.command import PlainGroup


class LazyGroup(PlainGroup):
    """`verbs`: command → (module, attribute, one line of help). The help stands there because
    modules load slowly."""

    verbs: ClassVar[Mapping[str, tuple[str, str, str]]]

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.verbs)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.list_commands(ctx):
            return None
        module, attribute, _ = self.verbs[cmd_name]
        found = getattr(import_module(module), attribute)
        assert isinstance(found, click.Command)
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(verb, self.verbs[verb][2]) for verb in self.list_commands(ctx)])
