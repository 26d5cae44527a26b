"""Every `tulle` command in the documents exists, with the options that it is given."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from agent.cli.main import tulle

ROOT = Path(__file__).parents[3]
DOCUMENTS = [
    ROOT / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
    ROOT / "agent/lab/README.md",
]
_COMMAND = re.compile(r"^ {4}(tulle .*)$|`(tulle [^`]*)`", re.MULTILINE)


def commands() -> Iterator[tuple[str, str]]:
    for path in DOCUMENTS:
        for match in _COMMAND.finditer(path.read_text()):
            text = (match[1] or match[2]).partition(" #")[0]
            for stop in (" | ", " && ", " > ", " &"):
                text = text.partition(stop)[0]
            yield str(path.relative_to(ROOT)), text.strip()


def known(words: list[str]) -> None:
    """ClickException unless the verbs exist and take these options."""
    command: click.Command = tulle
    context = click.Context(command, info_name="tulle")
    while isinstance(command, click.Group):
        if not words or words[0].startswith("-"):
            return
        found = command.get_command(context, words[0])
        assert found is not None, f"no verb {words[0]}"
        command, words = found, words[1:]
        context = click.Context(command, context, info_name=command.name)
    options = {name for option in command.params for name in (*option.opts, *option.secondary_opts)}
    stop = words.index("--") if "--" in words else len(words)
    if command.context_settings.get("allow_interspersed_args") is False:
        stop = min(stop, next((at for at, word in enumerate(words) if word[:1] != "-"), stop))
    for word in words[:stop]:
        if word.startswith("-") and word != "-":
            assert word.partition("=")[0] in options | {"--help"}, f"no option {word}"


@pytest.mark.parametrize(("document", "text"), list(commands()))
def test_a_command_in_a_document_can_be_typed(document: str, text: str) -> None:
    known(shlex.split(text.replace("…", ""))[1:])
