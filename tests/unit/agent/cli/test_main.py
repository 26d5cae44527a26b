"""The table of verbs: help, guesses, lazy modules, and the exit code of each way to fail."""

from __future__ import annotations

import subprocess
import sys

import click
import pytest

from agent.cli.main import VERBS, main, tulle
from control.kit.errors import ConfigError, KernelError, MeshError
from tests.unit.agent.cli.verbs import run


def every_command() -> list[list[str]]:
    found: list[list[str]] = []
    context = click.Context(tulle)
    for verb in VERBS:
        command = tulle.get_command(context, verb)  # type: ignore[attr-defined]  # a group
        found.append([verb])
        if isinstance(command, click.Group):
            found += [[verb, inner] for inner in command.commands]
    return found


@pytest.mark.parametrize("words", every_command(), ids=" ".join)
def test_every_help_has_an_example(words: list[str]) -> None:
    result = run(*words, "--help")
    assert result.exit_code == 0
    assert "Example: " in result.output


def test_the_first_help_loads_no_verb() -> None:
    code = (
        "import sys; from agent.cli.main import tulle\n"
        "tulle.main(['--help'], standalone_mode=False)\n"
        "print([m for m in sys.modules if m.startswith(('pyroute2', 'yaml', 'agent.lab.'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_mistyped_verb_is_guessed() -> None:
    assert "Did you mean 'status'?" in run("stauts").stderr
    assert run("--version").stdout.startswith("tulle ")


def test_usage_errors() -> None:
    assert run("nonsense").exit_code == 2
    assert run("lab", "delete").exit_code == 2


def failing(error: BaseException) -> click.Command:
    """A command that ends in this way."""

    def end() -> None:
        raise error

    return click.Command("failing", callback=end)


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (MeshError("denied"), 1, "error: denied"),
        (KernelError("no hook"), 1, "error: no hook"),
        (ConfigError("no node x"), 2, "error: no node x"),
        (PermissionError(13, "Permission denied", "/run/x"), 2, "/run/x: Permission denied"),
        (OSError(24, "Too many open files"), 2, "error: Too many open files"),
        (OSError(28, "No space left on device", "/x"), 2, "error: /x: No space left on device"),
        (click.UsageError("unknown"), 2, "unknown"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (click.exceptions.Exit(7), 7, ""),
    ],
)
def test_each_failure_has_its_exit_code_and_one_line(
    capsys: pytest.CaptureFixture[str], error: BaseException, code: int, told: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(failing(error), [])
    assert ended.value.code == code
    told_on_stderr = capsys.readouterr().err
    assert told in told_on_stderr
    assert "Traceback" not in told_on_stderr


def test_a_bug_is_not_hidden() -> None:
    with pytest.raises(KeyError):
        main(failing(KeyError("bug")), [])


OUTPUTS = {
    "full": ("> /dev/full", 2, "No space left on device"),
    "closed": (">&-", 2, "Bad file descriptor"),
    "closed and silent": (">&- 2>&-", 2, ""),
    "nobody reads": ("| true; exit ${PIPESTATUS[0]}", None, ""),
    "one line is read": ("2>&1 | head -1 >/dev/null; exit ${PIPESTATUS[0]}", None, ""),
    "no input": ("< /dev/null", None, ""),
    "input closed": ("<&-", None, ""),
    "errors closed": ("2>&-", None, ""),
    "errors full": ("2> /dev/full", None, ""),
}


@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize(
    ("verb", "code"), [("status", 0), ("workloads -o json", 0), ("check", 1), ("--help", 0)]
)
def test_output_that_cannot_be_written(dump: str, verb: str, code: int, output: str) -> None:
    into, lost, told = OUTPUTS[output]
    source = "" if verb == "--help" else f"-f {dump}"
    line = f"{sys.executable} -m agent.cli.main {verb} {source} {into}"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True)
    assert done.returncode == (code if lost is None else lost)
    assert told in done.stderr
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


def test_an_ascii_terminal_gets_ascii(dump: str) -> None:
    words = [sys.executable, "-m", "agent.cli.main", "check", "-f", dump]
    for how in ({"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C", "PYTHONUTF8": "0"}):
        done = subprocess.run(words, capture_output=True, env={"PYTHONCOERCECLOCALE": "0", **how})
        assert done.returncode == 1
        assert done.stdout.isascii()
        assert b"\nx the agent answers\n" in done.stdout


def test_success_ends_with_zero(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words=["completion", "bash"])
    assert ended.value.code == 0
    assert "_TULLE_COMPLETE" in capsys.readouterr().out
