"""Pods' tables of rules by port, with tables in memory for pins."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from agent.datapath import folder, pod_tables
from agent.datapath.entries import PlaintextRules, plaintext_entries, probe_entries
from agent.datapath.folder import PinFolder
from agent.datapath.pod_tables import PodTables
from bpf import layout
from bpf.layout import PlaintextRule
from control.model.intent import PROBE_PORTS_MAX
from tests.support.kernel.memory_map import MemoryMap


@pytest.fixture
def tables(monkeypatch: pytest.MonkeyPatch) -> dict[str, MemoryMap]:
    """By pod."""
    found: dict[str, MemoryMap] = {}

    def adopt(path: Path, name: str) -> MemoryMap:
        assert (path.name, name) == ("plaintext", "plaintext")
        return found.setdefault(path.parent.name, MemoryMap(4, 4, layout.PLAINTEXT_MAX))

    monkeypatch.setattr(folder, "adopt_map", adopt)
    return found


def made() -> PodTables[PlaintextRules]:
    return PodTables(PinFolder(Path("/pins")), "plaintext", plaintext_entries)


@pytest.fixture
def subject(tables: dict[str, MemoryMap]) -> PodTables[PlaintextRules]:
    return made()


def content(table: MemoryMap) -> dict[int, int]:
    def number(raw: bytes | None) -> int:
        (value,) = struct.unpack("=I", raw or b"")
        return int(value)

    return {number(key): number(table.lookup(key)) for key in table}


ALL_BUT = PlaintextRules(True, frozenset({9090}))


def test_rules_are_written_for_a_pod_that_is_captured_and_kept_for_one_that_is_not(
    subject: PodTables[PlaintextRules], tables: dict[str, MemoryMap]
) -> None:
    subject.tell("a", ALL_BUT, is_captured=True)
    assert content(tables["a"]) == {0: PlaintextRule.REFUSE, 9090: PlaintextRule.ASK}
    subject.tell("a", PlaintextRules(False, frozenset({80})), is_captured=True)
    assert content(tables["a"]) == {0: PlaintextRule.ASK, 80: PlaintextRule.REFUSE}
    subject.tell("b", ALL_BUT, is_captured=False)
    assert "b" not in tables
    subject.write("b")
    assert content(tables["b"]) == {0: PlaintextRule.REFUSE, 9090: PlaintextRule.ASK}


def test_what_an_earlier_run_wrote_holds_until_somebody_speaks(
    subject: PodTables[PlaintextRules], tables: dict[str, MemoryMap]
) -> None:
    subject.tell("a", ALL_BUT, is_captured=True)
    made().write("a")
    assert content(tables["a"]) == {0: PlaintextRule.REFUSE, 9090: PlaintextRule.ASK}


def test_what_is_kept_is_bounded(
    subject: PodTables[PlaintextRules],
    tables: dict[str, MemoryMap],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pod_tables, "TOLD_MAX", 2)
    for uid in ("a", "b", "c"):
        subject.tell(uid, ALL_BUT, is_captured=False)
    for uid in ("a", "b", "c"):
        subject.write(uid)
    assert [uid for uid in "abc" if content(tables[uid])] == ["b", "c"]


def test_more_ports_than_there_is_room_for_are_left_to_the_ztunnel() -> None:
    most = PlaintextRules(True, frozenset(range(1, layout.PLAINTEXT_MAX)))
    assert len(plaintext_entries(most)) == layout.PLAINTEXT_MAX
    assert plaintext_entries(PlaintextRules(True, frozenset(range(1, 65)))) == {}


def test_the_lowest_ports_count_where_there_are_too_many() -> None:
    ports = frozenset(range(1, layout.PROBES_MAX + 9))
    written = {struct.unpack("=I", key)[0] for key in probe_entries(ports)}
    assert written == set(range(1, layout.PROBES_MAX + 1))
    assert probe_entries(frozenset()) == {}
    assert layout.PROBES_MAX == PROBE_PORTS_MAX  # as in an intent


def test_rules_of_a_pod_that_is_forgotten_are_not_written_for_its_like(
    subject: PodTables[PlaintextRules], tables: dict[str, MemoryMap]
) -> None:
    subject.tell("a", ALL_BUT, is_captured=False)
    subject.forget("a")
    subject.forget("a")
    subject.write("a")
    assert content(tables["a"]) == {}
