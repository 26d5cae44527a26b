"""The cluster's CA on disk: for its owner alone, and for its own cluster."""

from __future__ import annotations

from pathlib import Path

import pytest

from control.server.ca.authority import new_authority
from control.server.ca.copy import AuthorityCopy, CopiedAuthority
from control.server.ca.rotation import KnownRoot, Rotation
from control.server.ca.secret import data_of
from tests.support.clock import START

DATA = data_of(new_authority("td", START))
COPIED = CopiedAuthority("tulle-ca", DATA, Rotation([KnownRoot("pem", 1.5, None)], DATA))


def test_it_comes_back_as_it_was_and_is_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "ca" / "copy.json"
    AuthorityCopy(path, "here").save(COPIED)
    assert AuthorityCopy(path, "here").load() == COPIED
    assert path.stat().st_mode & 0o777 == 0o600


def test_the_same_is_written_once(tmp_path: Path) -> None:
    path = tmp_path / "copy.json"
    copy = AuthorityCopy(path, "here")
    copy.save(COPIED)
    before = path.stat().st_ino
    copy.save(CopiedAuthority(COPIED.name, dict(DATA), COPIED.record))
    assert path.stat().st_ino == before


def test_that_of_another_cluster_is_not_taken(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    AuthorityCopy(tmp_path / "copy", "there").save(COPIED)
    assert AuthorityCopy(tmp_path / "copy", "here").load() is None
    assert "ca.copy_unusable" in caplog.text


@pytest.mark.parametrize("data", [b"", b"\xff", b"[" * 100_000, b'{"origin": "here"}'])
def test_a_broken_one_is_as_none(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "copy").write_bytes(data)
    assert AuthorityCopy(tmp_path / "copy", "here").load() is None


def test_none_and_a_disk_that_takes_nothing_are_no_reason_to_stop(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert AuthorityCopy(tmp_path / "copy", "here").load() is None
    assert not caplog.records
    AuthorityCopy(Path("/proc/nowhere/copy"), "here").save(COPIED)
    assert "ca.not_copied" in caplog.text
