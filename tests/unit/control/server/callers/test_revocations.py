"""Revoked tokens: followed live, never taken back by a file that cannot be read, bounded."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control.kit import lock
from control.server.callers import revocations
from control.server.callers.revocations import (
    KEPT_S,
    BadRevocations,
    RevocationFile,
    Revocations,
    add,
    fingerprint,
    load,
    one_token,
    parse,
    whole_node,
)
from tests.support.clock import FakeClock

MARK = fingerprint("a.b.c")


def test_what_was_revoked_is_read_and_earlier_ones_stay(tmp_path: Path) -> None:
    path, clock = tmp_path / "revoked", FakeClock()
    now_s = int(clock.now().timestamp())
    subject = RevocationFile(path)
    assert not subject.now().covers("n1", now_s, MARK)
    add(path, one_token("a.b.c", now_s + 60), clock)
    assert subject.now().covers("n1", now_s, MARK)
    assert not subject.now().covers("n1", now_s, fingerprint("x.y.z"))
    add(path, whole_node("n1", clock, 0), clock)
    for each in (subject.now(), RevocationFile(path).now()):
        assert each.covers("n2", now_s, MARK)
        assert each.covers("n1", now_s, "")
        assert not each.covers("n1", now_s + 1, "")
        assert not each.covers("n2", 0, "")
    assert path.stat().st_mode & 0o777 == 0o600
    assert "a.b.c" not in path.read_text(), "the file is no token"


def test_a_token_that_ended_long_ago_makes_room_and_a_node_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, clock = tmp_path / "revoked", FakeClock()
    end_s = int(clock.now().timestamp()) + 60
    add(path, one_token("a.b.c", end_s), clock)
    add(path, whole_node("n1", clock, 0), clock)
    clock.pass_s(61 + KEPT_S)
    add(path, one_token("x.y.z", end_s + 2 * KEPT_S), clock)
    assert fingerprint("a.b.c") in load(path).tokens, "there is room"
    monkeypatch.setattr(revocations, "REVOKED_BYTES_MAX", path.stat().st_size + 50)
    add(path, one_token("u.v.w", end_s + 2 * KEPT_S), clock)
    found = load(path)
    assert set(found.tokens) == {fingerprint("x.y.z"), fingerprint("u.v.w")}
    assert set(found.nodes) == {"n1"}


def test_a_clock_that_was_set_for_a_moment_takes_no_revocation_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, clock = tmp_path / "revoked", FakeClock()
    add(path, one_token("a.b.c", int(clock.now().timestamp()) + 60), clock)
    monkeypatch.setattr(revocations, "REVOKED_BYTES_MAX", path.stat().st_size + 50)
    clock.jump_s(KEPT_S)
    with pytest.raises(BadRevocations, match="full"):
        add(path, one_token("x.y.z", 99999999999), clock)
    assert fingerprint("a.b.c") in load(path).tokens


@pytest.mark.parametrize("line", ["token abc 5", "node n1", "node n1 soon", "nodes n1 5", "x"])
def test_a_line_that_cannot_be_understood_takes_nothing_back(
    tmp_path: Path, line: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "revoked"
    path.write_text(f"# words\n\ntoken {MARK} 99999999999\n")
    subject = RevocationFile(path)
    path.write_text(f"{line}\nnode n2 50\n")
    with caplog.at_level(logging.ERROR):
        found = subject.now()
        assert subject.now() is found
    assert found.covers("n1", 0, MARK)
    assert found.covers("n2", 50, "")
    assert [each.message for each in caplog.records] == ["revocations.unreadable"]
    with pytest.raises(BadRevocations, match="revoked:1: not a revocation"):
        RevocationFile(path)
    with pytest.raises(BadRevocations):
        add(path, Revocations(), FakeClock())


def test_a_file_that_cannot_be_opened_takes_nothing_back_and_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "revoked"
    path.write_text("node n1 50\n")
    subject = RevocationFile(path)
    monkeypatch.setattr(subject, "_path", Path("/proc/self/mem/x"))
    with caplog.at_level(logging.ERROR):
        for _ in range(3):
            assert subject.now().covers("n1", 50, "")
    assert len(caplog.records) == 1


def test_the_file_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, clock = tmp_path / "revoked", FakeClock()
    monkeypatch.setattr(revocations, "REVOKED_BYTES_MAX", 1000)
    for number in range(11):
        add(path, one_token(str(number), 99999999999), clock)
    before = path.read_text()
    with pytest.raises(BadRevocations, match="full"):
        add(path, one_token("one more", 99999999999), clock)
    assert path.read_text() == before
    subject = RevocationFile(path)
    path.write_text(before + "node n1 50\n" * 100)
    assert subject.now().covers("n1", 0, fingerprint("0"))
    assert subject.now().covers("n1", 50, "")
    with pytest.raises(BadRevocations, match="more than"):
        RevocationFile(path)


def test_two_who_write_do_not_lose_each_others(tmp_path: Path) -> None:
    path = tmp_path / "revoked"
    with lock.held(tmp_path / ".revoked.lock", "me"), pytest.raises(lock.AlreadyServed):
        add(path, whole_node("n1", FakeClock(), 0), FakeClock())


@pytest.mark.parametrize("name", ["", "a b", "a\nnode b", "\udc80", "a\x00"])
def test_a_name_that_no_line_can_hold_is_refused(name: str) -> None:
    with pytest.raises(BadRevocations):
        whole_node(name, FakeClock(), 0)


@given(
    st.dictionaries(st.text(max_size=3).map(fingerprint), st.integers(1, 10**12 - 1), max_size=5),
    st.dictionaries(st.from_regex(r"[a-z#.]{1,9}", fullmatch=True), st.integers(0, 10**9)),
)
def test_what_is_written_is_read(tokens: dict[str, int], nodes: dict[str, int]) -> None:
    made = Revocations(tokens, nodes)
    assert parse(made.text().split("\n")) == (made, [])


@given(st.text())
def test_any_text_is_read_without_a_crash(text: str) -> None:
    found, broken = parse(text.split("\n"))
    assert len(broken) <= text.count("\n") + 1
    assert all(0 <= each < 10**12 for each in (*found.tokens.values(), *found.nodes.values()))
