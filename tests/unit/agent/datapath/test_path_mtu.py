"""The setting by which a pod's TCP notices a path that drops large packets."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from agent.datapath import path_mtu
from agent.datapath.path_mtu import PathMtu

NAME = "net/ipv4/tcp_mtu_probing"


@pytest.fixture(autouse=True)
def no_namespace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(path_mtu.netns, "inside", lambda _: contextlib.nullcontext())


def settings(folder: Path, value: str) -> Path:
    file = folder / NAME
    file.parent.mkdir(parents=True)
    file.write_text(value)
    return folder


@pytest.mark.parametrize(("before", "after"), [("0\n", "1"), ("1\n", "1\n"), ("2\n", "2\n")])
def test_it_is_switched_on_where_the_pod_has_chosen_nothing(
    tmp_path: Path, before: str, after: str
) -> None:
    PathMtu((settings(tmp_path, before),)).probe(-1)
    assert (tmp_path / NAME).read_text() == after


def test_the_hosts_settings_serve_where_our_own_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, host = settings(tmp_path / "own", "0"), settings(tmp_path / "host", "0")
    write = Path.write_text

    def read_only(file: Path, text: str) -> int:
        if file.is_relative_to(own):
            raise OSError(30, "Read-only file system")
        return write(file, text)

    monkeypatch.setattr(Path, "write_text", read_only)
    PathMtu((own, host)).probe(-1)
    assert ((own / NAME).read_text(), (host / NAME).read_text()) == ("0", "1")


def test_a_host_that_does_not_allow_it_is_told_of_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    probing = PathMtu((tmp_path / "none", tmp_path / "neither"))
    for _ in range(3):
        probing.probe(-1)
    assert [each.message for each in caplog.records] == ["path_mtu.not_probed"]
