"""A node's revocation covers all of its tokens, and no later one, whatever is done to the clock."""

from __future__ import annotations

import asyncio
import tempfile
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control.kit import lock
from control.kit.errors import ConfigError
from control.server.callers import issued
from control.server.callers.budget import source_tenant
from control.server.callers.issued import NAME, IssuedTimes, last_s, load, note
from control.server.callers.revocations import Revocations, add, whole_node
from control.server.callers.revocations import load as load_revocations
from control.server.callers.tokens import NodeTokens, Unauthenticated
from tests.support.clock import FakeClock

DAYS = 86400
JUMPS = st.integers(-9 * DAYS, 9 * DAYS)
STEPS = st.lists(st.one_of(st.sampled_from(["issue", "revoke", "wait"]), JUMPS), max_size=12)
STRANGER = source_tenant("::1")


class Issuer:
    """The state folder of a control plane, and its command."""

    def __init__(self, state: Path) -> None:
        self.state, self.clock = state, FakeClock()
        self.revoked = Revocations()
        self.tokens = NodeTokens(b"k" * 32, "s", self.clock, lambda: self.revoked)
        self.void: list[str] = []
        self.good: list[str] = []

    def do(self, step: str | int) -> None:
        match step:
            case "issue":
                token = self.tokens.issue("n1", timedelta(days=365))
                note(self.state / NAME, "n1", self.tokens.issued_s(token))
                self.good.append(token)
            case "revoke":
                until = last_s(self.state, "n1")
                add(self.state / "revoked", whole_node("n1", self.clock, until), self.clock)
                self.revoked = load_revocations(self.state / "revoked")
                self.void, self.good = [*self.void, *self.good], []
            case "wait":
                self.clock.pass_s(1)
            case int(seconds):
                self.clock.jump_s(seconds)

    def is_good(self, token: str) -> bool:
        try:
            asyncio.run(self.tokens.authenticate(token, STRANGER))
        except Unauthenticated:
            return False
        return True


@given(STEPS)
def test_a_clock_that_is_set_neither_loses_a_revocation_nor_brings_a_token_back(
    steps: list[str | int],
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        subject = Issuer(Path(folder))
        for step in steps:
            subject.do(step)
            assert [each for each in subject.void if subject.is_good(each)] == []
            assert [each for each in subject.good if not subject.is_good(each)] == []


def test_the_last_token_of_each_node_is_known(tmp_path: Path) -> None:
    path = tmp_path / NAME
    assert load(path).last_s("n1") == 0
    note(path, "n1", 50)
    note(path, "n1", 40)
    note(path, "a b", 60)
    assert (last_s(tmp_path, "n1"), last_s(tmp_path, "a b"), last_s(tmp_path, "n2")) == (50, 60, 0)
    assert path.stat().st_mode & 0o777 == 0o600


def test_nodes_beyond_the_bound_are_covered_by_the_latest_of_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(issued, "NODES_MAX", 2)
    known = IssuedTimes()
    for number, name in enumerate("abcd"):
        known.note(name, 10 - number)
    assert (set(known.nodes), known.others) == ({"c", "d"}, 10)
    assert (known.last_s("a"), known.last_s("d"), known.last_s("x")) == (10, 7, 10)


def test_a_file_that_cannot_be_read_revokes_nothing_in_silence(tmp_path: Path) -> None:
    (tmp_path / NAME).write_text("{")
    with pytest.raises(ConfigError, match="not the times"):
        last_s(tmp_path, "n1")
    with pytest.raises(ConfigError):
        note(tmp_path / NAME, "n1", 1)


def test_who_waits_for_a_turn_gives_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(issued, "TURN_S", 0.0)
    path = tmp_path / NAME
    with lock.held(path.with_name(f".{NAME}.lock"), "me"), pytest.raises(lock.AlreadyServed):
        note(path, "n1", 1)
    note(path, "n1", 1)
