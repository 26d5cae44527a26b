"""The captured set: whole truths by node, kept on disk."""

from __future__ import annotations

import errno
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from control.kit.files import write_atomic
from control.model.address import parse_address
from control.model.intent import Intent
from control.server.sources import captured
from control.server.sources.captured import BadReport, CapturedSet, Reported
from tests.support.manifests import objects, pod


def bare(uids: Iterable[str]) -> Reported:
    """A report of pods without addresses, as older agents send it."""
    return dict.fromkeys(uids, ())


def believed(subject: CapturedSet, asked: Iterable[Intent]) -> set[str]:
    return {each.uid for each in asked if subject.is_captured(each)}


def in_force(subject: CapturedSet, homes: Mapping[str, str]) -> set[str]:
    """Those of some pods (uid → node) that count as captured."""
    return believed(subject, intents(**homes))


def test_a_report_replaces_its_nodes_truth_and_survives(tmp_path: Path) -> None:
    subject = CapturedSet(tmp_path / "captured", is_new=True)
    assert subject.take("n1", bare(["a", "b"])) == {"a", "b"}
    assert not subject.take("n1", bare(["b", "a", "a"]))
    assert subject.take("n2", bare(["c"])) == {"c"}
    assert subject.changes("n1", bare(["b"])) == {"a"}
    assert subject.take("n1", bare(["b"])) == {"a"}
    for node in ("n1", "n2"):
        subject.save(node)
    homes = {"a": "n1", "b": "n1", "c": "n2"}
    assert in_force(CapturedSet(tmp_path / "captured"), homes) == in_force(subject, homes)
    assert in_force(subject, homes) == {"b", "c"}
    assert subject.take("n1", bare([])) == {"b"}
    subject.save("n1")
    assert in_force(CapturedSet(tmp_path / "captured"), homes) == {"c"}
    assert not subject.take("n3", bare([]))


def test_a_report_costs_what_its_own_node_has(tmp_path: Path) -> None:
    subject = CapturedSet(tmp_path, is_new=True)
    for node in ("n1", "n2"):
        subject.take(node, bare(["a" + node]))
        subject.save(node)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert len(before) == 4, "one of each node, the reserve, and the seal"
    subject.take("n1", bare(["b"]))
    subject.save("n1")
    after = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert len([path for path in after if after[path] != before.get(path)]) == 1


def test_a_pod_counts_while_its_own_node_reports_it(tmp_path: Path) -> None:
    subject = CapturedSet(tmp_path / "captured", is_new=True)
    subject.take("n1", bare(["stays", "flickers", "moved"]))
    assert in_force(subject, {"stays": "n1", "moved": "n2"}) == {"stays"}
    assert in_force(subject, {"stays": "n1", "flickers": "n1"}) == {"stays", "flickers"}
    assert subject.has("n1", "moved")
    assert not subject.has("n2", "moved")


def test_reports_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    subject = CapturedSet(tmp_path / "captured", is_new=True)
    for bad in (map(str, range(captured.UIDS_PER_NODE_MAX + 1)), ["x" * 254]):
        with pytest.raises(BadReport):
            subject.take("n1", bare(bad))
    assert in_force(subject, {"1": "n1"}) == frozenset()
    monkeypatch.setattr(captured, "NODES_MAX", 1)
    subject.take("n1", bare(["a"]))
    with pytest.raises(BadReport):
        subject.take("n2", bare(["a"]))


def test_any_name_of_a_node_is_kept(tmp_path: Path) -> None:
    subject = CapturedSet(tmp_path, is_new=True)
    for node in ("../../etc/x", "n" * 300, "\udc80", "ü"):
        subject.take(node, bare(["a"]))
        subject.save(node)
        assert CapturedSet(tmp_path).has(node, "a")


def intent(uid: str, node: str, enrolled: bool = True) -> Intent:
    return Intent(uid, uid, "demo", "default", node, (), enrolled, "label")


def intents(**pods: str) -> list[Intent]:
    """Enrolled pods, uid=node, and one on n1 that is not."""
    made = [intent(uid, node) for uid, node in pods.items()]
    return [*made, intent("outside", "n1", enrolled=False)]


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"n1": 5}', '{"node": "n1", "uids": 5}', "[" * 100_000, None]
)
def test_a_file_that_nobody_understands_costs_no_pod_its_capture(
    tmp_path: Path, text: str | None
) -> None:
    first = CapturedSet(tmp_path, is_new=True)
    first.take("n1", bare(["a"]))
    first.save("n1")
    if text is None:
        (tmp_path / "x").mkdir()
    else:
        (tmp_path / "x").write_text(text)
    subject = CapturedSet(tmp_path)
    assert subject.has("n1", "a")
    assert believed(subject, intents(a="n1", b="n2")) == {"a", "b"}


def test_a_start_that_found_everything_doubts_nothing(tmp_path: Path) -> None:
    asked = intents(a="n1")
    for _ in range(2):
        assert not believed(CapturedSet(tmp_path / "new", is_new=True), asked)
        assert not believed(CapturedSet(tmp_path / "new"), asked)
    assert believed(CapturedSet(tmp_path / "lost"), asked) == {"a"}
    assert believed(CapturedSet(tmp_path / "lost"), asked) == {"a"}, "until it is over"


def test_what_was_not_saved_is_doubted_after_the_next_start(tmp_path: Path) -> None:
    asked = intents(a="n1", b="n2")
    subject = CapturedSet(tmp_path, is_new=True)
    subject.seal(False)
    assert not believed(subject, asked), "it remembers"
    second = CapturedSet(tmp_path)
    assert believed(second, asked) == {"a", "b"}
    second.doubt.hear("n1")
    assert believed(second, asked) == {"b"}
    second.seal(True)
    assert believed(CapturedSet(tmp_path), asked) == {"a", "b"}, "its doubt was not over"
    second.doubt.end()
    second.seal(True)
    assert not believed(CapturedSet(tmp_path), asked)


def test_nodes_that_are_gone_make_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(captured, "NODES_MAX", 2)
    subject = CapturedSet(tmp_path, is_new=True)
    for node in ("n1", "n2"):
        subject.take(node, bare(["a"]))
        subject.save(node)
    assert subject.is_full
    subject.keep_only({"n2", "n3"})
    assert subject.take("n3", bare(["b"])) == {"b"}
    assert not CapturedSet(tmp_path).has("n1", "a")
    assert CapturedSet(tmp_path).has("n2", "a")


V4, OTHER4, V6 = map(parse_address, ("10.0.0.2", "10.0.0.3", "fd00::2"))


def test_addresses_are_news_and_are_kept(tmp_path: Path) -> None:
    subject = CapturedSet(tmp_path, is_new=True)
    assert subject.take("n1", {"a": (V4, V6), "b": ()}) == {"a", "b"}
    assert subject.take("n1", {"a": (V4, V6), "b": (OTHER4,)}) == {"b"}
    assert not subject.take("n1", {"a": (V4, V6), "b": (OTHER4,)})
    subject.save("n1")
    (found,) = objects(pod("p", "shop", address="")).pods
    for each in (subject, CapturedSet(tmp_path)):
        placed = each.placed("a", found)
        assert (placed.addresses, placed.is_placed_by_node) == ((V4, V6), True)
    assert subject.placed("a", replace(found, node="n2")).addresses == ()
    assert subject.placed("c", found) is found
    stated = replace(found, addresses=(V6, V4))
    assert subject.placed("a", stated) is stated
    # The object still has the address of a sandbox that was replaced.
    behind = subject.placed("a", replace(found, addresses=(OTHER4,)))
    assert (behind.addresses, behind.is_placed_by_node) == ((V4, V6), True)
    assert behind.stated_addresses == (OTHER4,)
    host = replace(found, host_network=True)
    assert subject.placed("a", host) is host


def test_a_pod_has_one_address_of_a_family(tmp_path: Path) -> None:
    with pytest.raises(BadReport, match="one family"):
        CapturedSet(tmp_path).take("n1", {"a": (V4, OTHER4)})


def test_a_full_disk_has_room_for_reports_that_was_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reserve = tmp_path / ".reserve"
    subject = CapturedSet(tmp_path, is_new=True)
    assert reserve.stat().st_blocks * 512 >= captured.RESERVE_BYTES

    def full(path: Path, data: bytes, mode: int) -> None:
        if reserve.exists():
            raise OSError(errno.ENOSPC, "No space left on device")
        write_atomic(path, data, mode)

    def none(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(captured, "write_atomic", full)
    monkeypatch.setattr(captured.os, "posix_fallocate", none)
    subject.take("n1", bare(["a"]))
    subject.save("n1")
    assert CapturedSet(tmp_path).has("n1", "a")
    assert not reserve.exists(), "nothing is left of a reserve without room"
    monkeypatch.undo()
    subject.save("n1")
    assert reserve.exists(), "room again"


def test_a_disk_that_fails_otherwise_costs_no_reserve(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    subject = CapturedSet(tmp_path, is_new=True)
    subject.take("n1", bare(["a"]))
    monkeypatch.setattr(captured, "write_atomic", broken)
    with pytest.raises(OSError, match="Input/output"):
        subject.save("n1")
    assert (tmp_path / ".reserve").exists()
