"""Every option of every verb, with a value that nothing has: exit 2, one line, no traceback."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from agent.cli.main import VERBS, main, tulle

# A value that nothing has, and words that the error must hold, by the option's name.
UNKNOWN = {
    "node": ("n9", "there are: n1, n2"),
    "namespace": ("typo", "there are: "),
    "dump_file": ("/absent/dump.json", "/absent/dump.json"),
    "output_format": ("xml", "xml"),
    "shape": ("xml", "xml"),
    "timeout": ("soon", "soon"),
    "labels": ("a in (b)", "-l "),
    "direction": ("sideways", "sideways"),
    "component": ("kernel", "kernel"),
    "shell": ("cmd", "cmd"),
    "pod": ("shop/typo", "no pod 'shop/typo'"),
    "where": ("n9", "there are: n1, n2"),
    "level": ("loud", "loud"),
    "profile": ("huge", "huge"),
    "words": ("nothing", "write NAME=VALUE"),
    "files": ("/absent/values.yaml", "/absent/values.yaml"),
    "output": ("xml", "xml"),
    "parts": ("kernel", "kernel"),
    "kubeconfig": ("/absent/kubeconfig", "/absent/kubeconfig"),
    "context": ("nowhere", "kubeconfig"),
    "service": ("typo", "no service 'typo'"),
    "caller": ("nobody", "'nobody'"),
    "headers": ("oops", "'oops'"),
}
# Not values: a word for the run folder, a file to write, a name that only a live mesh can judge.
JUDGED_ELSEWHERE = {
    ("dump", "path"),
    ("namespace add", "name"),
    ("namespace remove", "name"),
    ("routes explain", "method"),
    ("routes explain", "url"),
    ("waypoint status", "gateway"),
}
# Words that a verb asks for besides.
ASKED_FOR = {
    "namespace add": ["shop"],
    "namespace remove": ["shop"],
    "routes explain": ["GET", "http://web/"],
    "waypoint status": ["shop/waypoint"],
}
# In a live mesh only: a dump has no other node to ask.
FIRST = {"level": ("n1",)}
CLUSTER = ("kubeconfig", "context")


def commands() -> Iterator[tuple[str, click.Command]]:
    context = click.Context(tulle)
    for verb in VERBS:
        if verb == "lab":
            continue  # tests/unit/agent/lab/verbs
        command = tulle.get_command(context, verb)  # type: ignore[attr-defined]  # a group
        assert command is not None
        if isinstance(command, click.Group):
            yield from ((f"{verb} {name}", inner) for name, inner in command.commands.items())
        else:
            yield verb, command


def values() -> Iterator[tuple[str, tuple[str, ...], str]]:
    for name, command in commands():
        for each in command.params:
            reads_dumps = any(other.name == "dump_file" for other in command.params)
            if getattr(each, "is_flag", False) or (name, each.name) in JUDGED_ELSEWHERE:
                continue
            value, told = UNKNOWN[str(each.name)]
            words = (
                (each.opts[-1], value)
                if isinstance(each, click.Option)
                else (*FIRST.get(str(each.name), ()), value)
            )
            needs_mesh = reads_dumps and each.name not in ("dump_file", *CLUSTER)
            yield name, (*words, *(("-f", "DUMP") if needs_mesh else ())), told


@pytest.mark.parametrize(("verb", "words", "told"), list(values()))
def test_an_unknown_value_is_an_error_that_names_it(
    verb: str,
    words: tuple[str, ...],
    told: str,
    dump: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    name = ASKED_FOR.get(verb, [])
    (tmp_path / "run" / "n1" / "state").mkdir(parents=True)
    (tmp_path / "run" / "n2" / "state").mkdir(parents=True)
    given = [dump if word == "DUMP" else word for word in words]
    with pytest.raises(SystemExit) as ended:
        main(words=["--run-dir", str(tmp_path / "run"), *verb.split(), *name, *given])
    said = capsys.readouterr()
    assert ended.value.code == 2, said
    assert told in said.err
    assert not said.out
    assert "Traceback" not in said.err


@pytest.mark.parametrize("verb", [name for name, _ in commands()])
def test_an_option_that_is_not_there_is_named(
    verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words=[*verb.split(), "--nonsense"])
    assert ended.value.code == 2
    assert "--nonsense" in capsys.readouterr().err
