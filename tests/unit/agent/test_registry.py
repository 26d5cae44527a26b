"""Registrations: which namespaces are refused, what survives a restart and what a reboot voids."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from agent import registry
from agent.datapath.errors import DatapathError
from agent.registry import (
    NamespaceGone,
    NamespaceRefused,
    Registration,
    Registry,
    StateUnwritable,
)
from control.model.address import parse_address
from tests.support.descriptors import no_descriptors

POD = Registration(
    "uid/1 ..", "shop", "web", "/run/netns/x", 7, 8, "default", (parse_address("10.0.0.1"),)
)


def load(folder: Path) -> Registry:
    known = Registry(folder)
    known.load()
    return known


def test_a_restart_finds_what_was_registered(tmp_path: Path) -> None:
    load(tmp_path).put(POD)
    (path,) = tmp_path.iterdir()
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(load(tmp_path)) == [POD]
    known = load(tmp_path)
    assert json.loads(path.read_text())["addresses"] == ["10.0.0.1"]
    moved = replace(POD, addresses=tuple(map(parse_address, ("10.0.0.9", "fd00::9"))))
    known.learn(moved)
    assert load(tmp_path).get(POD.uid) == moved
    known.remove(POD.uid)
    assert list(load(tmp_path)) == []


def test_a_record_has_the_end_of_a_capture_only_when_there_was_one(tmp_path: Path) -> None:
    """An agent from before knows no such field."""
    load(tmp_path).put(POD)
    (path,) = tmp_path.iterdir()
    assert not {"released_s", "held_until_s"} & json.loads(path.read_text()).keys()
    load(tmp_path).put(replace(POD, released_s=12.5, held_until_s=13.5))
    assert list(load(tmp_path)) == [replace(POD, released_s=12.5, held_until_s=13.5)]


def test_a_reboot_voids_it(tmp_path: Path) -> None:
    load(tmp_path).put(POD)
    (path,) = tmp_path.iterdir()
    record = json.loads(path.read_text())
    path.write_text(json.dumps({**record, "boot_id": "another"}))
    assert list(load(tmp_path)) == []
    assert not path.exists()


@pytest.mark.parametrize(
    "text",
    ["", "{}", "[]", '{"boot_id": 1, "addresses": [], "x": 1}', "\0" * 300, "[" * 100_000],
)
def test_an_unreadable_record_is_dropped(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.json").write_text(text)
    assert list(load(tmp_path)) == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "change",
    [
        {"addresses": "10.0.0.1"},
        {"addresses": ["nonsense"]},
        {"addresses": [1]},
        {"uid": "another"},
        {"uid": 5},
        {"uid": ""},
        {"netns": None},
        {"inode": "7"},
        {"cookie": 1.5},
        {"container_id": 7},
        {"is_placed": 1},
        {"released_s": "1"},
        {"released_s": True},
        {"held_until_s": "1"},
    ],
)
def test_a_record_with_a_wrong_field_is_dropped(tmp_path: Path, change: dict[str, object]) -> None:
    load(tmp_path).put(POD)
    (path,) = tmp_path.iterdir()
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    assert list(load(tmp_path)) == []
    assert not path.exists()


def test_what_a_crash_left_in_the_folder_does_not_stay(tmp_path: Path) -> None:
    load(tmp_path).put(POD)
    (tmp_path / ".x.json.abcdefgh").write_text("half")
    (tmp_path / "folder.json").mkdir()
    assert list(load(tmp_path)) == [POD]
    assert not list(tmp_path.glob(".*"))


def test_a_disk_that_takes_nothing_is_told_and_tried_again(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    known = load(folder)
    folder.rmdir()  # stands for a full disk: no file can be made
    with pytest.raises(StateUnwritable):
        known.put(POD)
    assert known.get(POD.uid) is None
    known.learn(POD)
    assert known.get(POD.uid) == POD
    with pytest.raises(StateUnwritable):
        known.put(POD)  # known, but not on disk: still no promise
    known.save()
    folder.mkdir()
    known.save()
    assert list(load(folder)) == [POD]
    folder.rename(tmp_path / "away")
    known.remove(POD.uid)
    assert list(known) == []


def test_uids_cannot_leave_the_folder(tmp_path: Path) -> None:
    known = load(tmp_path / "state")
    for uid in ("../../x", "..", "/etc/x", "a\0b"):
        known.put(replace(POD, uid=uid))
    assert {path.parent for path in tmp_path.rglob("*.json")} == {tmp_path / "state"}
    assert len(list((tmp_path / "state").iterdir())) == 4


@pytest.mark.parametrize(
    "path", ["/proc/self/ns/net", "/proc/self/ns/mnt", "/dev/null", "/no", "/"]
)
def test_only_a_foreign_network_namespace_can_be_a_pods(path: str) -> None:
    with pytest.raises(NamespaceRefused), registry.opened(path):
        pass


def test_a_process_that_is_not_there_is_refused() -> None:
    with pytest.raises(NamespaceRefused):
        registry.path_of_pid(2**22 + 1)
    with pytest.raises(NamespaceRefused):
        registry.path_of_pid(2**70)
    assert registry.path_of_pid(os.getpid()) == f"/proc/{os.getpid()}/ns/net"


def test_a_namespace_that_vanished_is_gone() -> None:
    assert not registry.is_there(POD)
    assert not registry.is_there(replace(POD, netns="/dev/null"))
    with pytest.raises(NamespaceGone), registry.opened_again(POD):
        pass


def test_a_namespace_is_looked_into_once_while_its_file_is_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looks: list[str] = []

    @contextlib.contextmanager
    def opened_again(registration: Registration) -> Iterator[int]:
        looks.append(registration.uid)
        yield -1

    monkeypatch.setattr(registry, "opened_again", opened_again)
    here = replace(POD, netns="/proc/self/ns/net", inode=os.stat("/proc/self/ns/net").st_ino)
    with open("/proc/self/ns/net"):  # else each look makes its file anew
        first = registry.stamp(here, None)
        assert first not in (None, registry.UNSEEN)
        assert registry.stamp(here, first) == first
        assert len(looks) == 1
        assert registry.stamp(here, (here.inode, 1)) == first, "another one with its number"
        assert len(looks) == 2
    assert registry.stamp(replace(here, inode=here.inode + 1), first) is None


def test_nothing_is_gone_because_we_have_no_descriptors_to_look() -> None:
    """Else an agent that has run out of them would release every pod of its node."""
    here = replace(POD, netns="/proc/self/ns/net", inode=os.stat("/proc/self/ns/net").st_ino)
    with no_descriptors():
        assert registry.is_there(here)
        assert registry.stamp(here, None) == registry.UNSEEN
        with pytest.raises(DatapathError), registry.opened_again(here):
            pass
        with pytest.raises(OSError, match="Too many open files"):
            registry.find({POD.cookie})


def test_the_first_address_of_each_family_counts() -> None:
    four, five, six = map(parse_address, ("10.0.0.4", "10.0.0.5", "fd00::6"))
    assert registry.one_of_each_family((six, four, five)) == (four, six)


def test_a_search_survives_folders_that_may_not_be_read() -> None:
    assert registry.find({2**64 - 1}) == {}
    assert registry._names_in("/proc/1/root/absent") == []
