"""Exec plugins, as real programs."""

from __future__ import annotations

import asyncio
import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from control.kube.errors import AccessError
from control.kube.plugin import API_VERSIONS, Command, Plugin, read_credential
from tests.support.clock import FakeClock

ENV = {"PATH": os.environ["PATH"]}


def program(folder: Path, text: str) -> Command:
    path = folder / "plugin"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return Command(str(path), ("one",), {"EXTRA": "set"}, install_hint="see the manual")


def credential(**status: str) -> str:
    value = {"apiVersion": API_VERSIONS[0], "kind": "ExecCredential", "status": status}
    return json.dumps(value)


def test_a_plugin_gets_its_arguments_and_environment(tmp_path: Path) -> None:
    text = f"""case "$KUBERNETES_EXEC_INFO" in *ExecCredential*) ;; *) exit 3;; esac
[ "$EXTRA $1" = "set one" ] && echo '{credential(token="abc")}'"""
    assert asyncio.run(Plugin(program(tmp_path, text), ENV).proof()).authorization == "Bearer abc"


def test_it_runs_again_when_its_credential_ends_and_when_it_was_refused(tmp_path: Path) -> None:
    clock = FakeClock()
    ends = (clock.now() + timedelta(minutes=5)).isoformat()
    runs = tmp_path / "runs"
    text = f"""echo run >> {runs}
echo '{credential(token="abc", expirationTimestamp=ends)}'"""

    async def main() -> None:
        plugin = Plugin(program(tmp_path, text), ENV, clock)
        first, second = await plugin.proof(), await plugin.proof()
        assert first == second
        assert len(runs.read_text().split()) == 1
        clock.pass_s(280)
        await plugin.proof()
        assert len(runs.read_text().split()) == 2
        plugin.refused()
        await plugin.proof()
        assert len(runs.read_text().split()) == 3

    asyncio.run(main())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("echo no login >&2; exit 4", "exit code 4: no login"),
        ("echo nothing", "no ExecCredential"),
        ("echo '{}'", "wrote"),
        (f"echo '{credential()}'", "neither a token nor a certificate"),
        (f"echo '{credential(clientCertificateData='x')}'", "without a key"),
        (f"echo '{credential(token='a b')}'", None),
        ("yes | head -c 3000000", "no ExecCredential"),
    ],
)
def test_a_plugin_that_fails_says_why(tmp_path: Path, text: str, words: str | None) -> None:
    plugin = Plugin(program(tmp_path, text), ENV)
    if words is None:
        assert asyncio.run(plugin.proof()).authorization == "Bearer a b"
        return
    with pytest.raises(AccessError, match=words):
        asyncio.run(plugin.proof())


def test_a_plugin_that_is_not_there_says_how_to_get_it() -> None:
    command = Command("no-such-plugin", install_hint="pip install it")
    with pytest.raises(AccessError, match="not installed; pip install it"):
        asyncio.run(Plugin(command, ENV).proof())


def test_a_certificate_comes_with_its_key() -> None:
    text = credential(clientCertificateData="C", clientKeyData="K").encode()
    proof, ends = read_credential(text, Command("x"))
    assert ends is None
    assert proof.own is not None
    assert (proof.own.certificate.data, proof.own.key.data) == (b"C", b"K")


def test_an_end_without_a_time_zone_is_refused() -> None:
    now = datetime.now(UTC).replace(tzinfo=None).isoformat()  # noqa: TID251 any time will do
    with pytest.raises(AccessError, match="time zone"):
        read_credential(credential(token="a", expirationTimestamp=now).encode(), Command("x"))
