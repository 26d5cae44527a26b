"""The last good state on disk: it comes back equal, or not at all and with words."""

from __future__ import annotations

import logging
import zlib
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from control.kit.clock import SystemClock
from control.server.sources import state_file
from control.server.sources.directory import DirectorySource
from control.server.sources.objects import Objects
from control.server.sources.state_file import CHUNK, FILE_BYTES_MAX, StateFile, shape

NOW = datetime(2026, 1, 1, tzinfo=UTC)
MANIFESTS = Path(__file__).parent / "cluster.yaml"


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> Objects:
    """Some of every kind, stand-ins for broken policies among them."""
    folder = tmp_path_factory.mktemp("manifests")
    (folder / "all.yaml").write_bytes(MANIFESTS.read_bytes())
    found = DirectorySource(folder, SystemClock()).read().objects
    assert all(found.counts().values())
    return found


@pytest.fixture
def path(tmp_path: Path, objects: Objects) -> Path:
    made = tmp_path / "state"
    assert StateFile(made, "here").save(objects, NOW)
    return made


def test_every_kind_comes_back_as_it_was(path: Path, objects: Objects) -> None:
    kept = StateFile(path, "here").load()
    assert kept is not None
    assert kept.objects == objects
    assert kept.current_at == NOW
    assert path.stat().st_mode & 0o777 == 0o600


def test_many_objects_keep_their_order(tmp_path: Path, objects: Objects) -> None:
    pod = objects.pods[0]
    pods = tuple(
        replace(pod, meta=replace(pod.meta, uid=str(number))) for number in range(2 * CHUNK + 1)
    )
    file = StateFile(tmp_path / "state", "here")
    file.save(Objects(pods=pods), NOW)
    kept = file.load()
    assert kept is not None
    assert kept.objects == Objects(pods=pods)


def test_a_touched_state_is_as_new_as_that(path: Path) -> None:
    file = StateFile(path, "here")
    before = path.read_bytes()
    file.touch(NOW + timedelta(hours=1))
    kept = file.load()
    assert kept is not None
    assert kept.current_at == NOW + timedelta(hours=1)
    assert path.read_bytes() == before


def test_none_is_no_trouble(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert StateFile(tmp_path / "state", "here").load() is None
    assert not caplog.records


def cut(data: bytes) -> bytes:
    return data[:-1]


def changed(data: bytes) -> bytes:
    return data[:-20] + bytes([data[-20] ^ 1]) + data[-19:]


def older(data: bytes) -> bytes:
    return data.replace(shape().encode(), b"0" * len(shape()))


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (cut, "cut or changed"),
        (changed, "cut or changed"),
        (older, "another version"),
        (lambda data: data.replace(b'"format":2', b'"format":9'), "another version"),
        (lambda data: data.replace(b'"here"', b'"over there"'), "another source: over there"),
        (lambda data: b"", "not a state"),
        (lambda data: b"\xff\x00" * 40, "not a state"),
        (lambda data: b"[" * 100_000, "not a state"),
        (lambda data: b'{"format": 1}\n' + data, "not a state"),
        (lambda data: data + bytes(FILE_BYTES_MAX), "more than"),
    ],
)
def test_a_damaged_or_foreign_file_is_passed_over_with_a_line(
    path: Path,
    caplog: pytest.LogCaptureFixture,
    damage: Callable[[bytes], bytes],
    why: str,
) -> None:
    path.write_bytes(damage(path.read_bytes()))
    assert StateFile(path, "here").load() is None
    (line,) = caplog.records
    assert line.levelno == logging.ERROR
    assert why in str(vars(line))


def test_a_packed_file_cannot_blow_up(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state_file, "CONTENT_BYTES_MAX", 100)
    assert StateFile(path, "here").load() is None


def test_content_that_is_not_objects_is_refused(path: Path) -> None:
    head = path.read_bytes().split(b"\n", 1)[0]
    packed = zlib.compress((4).to_bytes(4, "big") + b"\x81\xa1x\x01")
    for body in (packed, zlib.compress(b"\x00\x00\xff\xff\x01")):
        digest = state_file._digest(body).encode()
        at = head.index(b'"digest":"') + 10
        path.write_bytes(head[:at] + digest + head[at + 40 :] + b"\n" + body)
        kept = StateFile(path, "here").load()
        assert kept is None or kept.objects == Objects()


def test_text_and_numbers_that_no_file_takes_do_not_keep_the_rest_out(
    tmp_path: Path, objects: Objects
) -> None:
    pod = objects.pods[0]
    meta = replace(pod.meta, file="a\udcff.yaml", generation=10**40)
    file = StateFile(tmp_path / "state", "here")
    assert file.save(replace(objects, pods=(replace(pod, meta=meta),)), NOW)
    kept = file.load()
    assert kept is not None
    (found,) = kept.objects.pods
    assert (found.meta.file, found.addresses) == ("a?.yaml", pod.addresses)


def test_a_full_disk_leaves_what_was_kept(
    path: Path, objects: Objects, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    file = StateFile(path, "here")
    monkeypatch.setattr(state_file, "FILE_BYTES_MAX", 100)
    assert not file.save(Objects(pods=objects.pods), NOW)
    assert not file.save(Objects(pods=objects.pods), NOW)
    monkeypatch.undo()
    assert len(caplog.records) == 1
    path.parent.chmod(0o500)
    kept = file.load()
    assert kept is not None
    assert kept.objects == objects


def test_changes_are_appended_and_come_back(path: Path, objects: Objects) -> None:
    file = StateFile(path, "here")
    assert not file.add({}, NOW), "only to a state that this process wrote"
    assert file.save(objects, NOW)
    assert file.count() == len(objects)
    before = path.read_bytes()
    pod, other = objects.pods[:2]
    moved = replace(pod, node="elsewhere", meta=replace(pod.meta, file="a\udcff"))
    assert file.add({pod.meta.key: moved}, NOW)
    assert file.add({other.meta.key: None}, NOW + timedelta(hours=1))
    assert path.read_bytes() == before
    kept = StateFile(path, "here").load()
    assert kept is not None
    assert kept.current_at == NOW + timedelta(hours=1)
    assert len(kept.objects) == len(objects) - 1
    assert [each.node for each in kept.objects.pods if each.meta.key == pod.meta.key] == [
        "elsewhere"
    ]


def test_changes_of_another_state_and_cut_ones_count_for_nothing(
    path: Path, objects: Objects
) -> None:
    file, changes = StateFile(path, "here"), path.with_name("state-changes")
    file.save(objects, NOW)
    file.add({objects.pods[0].meta.key: None}, NOW)
    whole = changes.read_bytes()
    for data in (whole[:-1], b"x" + whole, whole[:-9] + b"x" + whole[-8:], b"", b"\0" * 99):
        changes.write_bytes(data)
        kept = StateFile(path, "here").load()
        assert kept is not None
        assert kept.objects == objects
    changes.write_bytes(whole)
    file.save(replace(objects, nodes=()), NOW)
    kept = StateFile(path, "here").load()
    assert kept is not None
    assert kept.objects == replace(objects, nodes=())


def test_many_changes_ask_for_the_whole_and_a_full_disk_too(
    path: Path, objects: Objects, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = StateFile(path, "here")
    file.save(objects, NOW)
    monkeypatch.setattr(state_file, "CHANGES_BYTES_MIN", 1)
    monkeypatch.setattr(state_file, "CHANGES_SHARE", 1000)
    key = objects.pods[0].meta.key
    assert file.add({key: None}, NOW)
    assert not file.add({key: None}, NOW)
    file.save(objects, NOW)
    changes = path.with_name("state-changes")
    changes.unlink()
    changes.mkdir()
    assert not file.add({key: None}, NOW)
    changes.rmdir()
    assert not file.add({key: None}, NOW), "what is there may end in half a record"
    assert file.save(objects, NOW)
    assert file.add({key: None}, NOW)
