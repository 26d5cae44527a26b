"""The command line: help, and a usage error for every setting that cannot be."""

from __future__ import annotations

import logging

import click
import pytest
from click.testing import CliRunner

from control.kit.log import set_level
from ztunnel import main


def run(*flags: str) -> tuple[int, str]:
    result = CliRunner().invoke(main.main, flags)
    return result.exit_code, result.output


def test_help_names_every_flag_with_our_variable_and_istios() -> None:
    code, output = run("--help")
    assert code == 0
    for flag in main.main.params:
        if isinstance(flag, click.Option) and flag.name not in ("version", "help"):
            assert flag.opts[0] in output
            assert f"TULLE_{flag.opts[0][2:].upper().replace('-', '_')}" in output
    for name in ("XDS_ADDRESS", "CA_ADDRESS", "NODE_NAME", "INPOD_UDS", "SECRET_TTL"):
        assert name in output
    assert "SIGTERM drains" in output


def test_the_version_is_said() -> None:
    code, output = run("--version")
    assert code == 0
    assert output.startswith("tulle-ztunnel ")


@pytest.mark.parametrize(
    ("flags", "why"),
    [
        ((), "missing option '--control'"),
        (("--control", "c:1", "serve"), "unexpected arguments: serve"),
        (("--control", "nohost"), "not host:port"),
        (("--control", "c:1", "--drain", "soon"), "is not a duration"),
        (("--control", "c:1", "--workers", "many"), "not a number of workers"),
        (("--control", "c:1", "--node", ""), "--node is empty"),
        (("--control", "c:1", "--log-format", "xml"), "--log-format"),
        (("--control", "c:1", "--log-level", "loud"), "not a log level"),
        (("--control", "c:1", "--log-level", "acess:debug"), "no log scope 'acess', perhaps"),
    ],
)
def test_a_setting_that_cannot_be_is_a_usage_error(flags: tuple[str, ...], why: str) -> None:
    code, output = run(*flags)
    assert code == 2
    assert why in output


def test_a_module_of_istios_in_rust_log_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[object] = []
    monkeypatch.setattr(main, "run", ran.append)
    monkeypatch.setenv("RUST_LOG", "info,hickory_server::server=off")
    before, level = logging.root.handlers[:], logging.root.level
    try:
        code, output = run("--control", "c:1")
    finally:
        logging.root.handlers[:] = before
        logging.root.setLevel(level)
        set_level("reset")
    assert (code, len(ran)) == (0, 1)
    assert "log.scope_unknown scope=hickory_server::server known=access," in output
