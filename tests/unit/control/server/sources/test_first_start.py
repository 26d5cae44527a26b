"""A file that cannot be read at a first start: what was in force before may be in it."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from control.server.sources import directory
from control.server.sources.directory import UNREAD_AGAIN_S, DirectorySource
from control.server.sources.kept import Kept
from control.server.sources.snapshot import Snapshot
from tests.unit.control.server.sources.test_directory import POLICY, LateClock, OldClock, SlowClock

SPACES = "---\n".join(
    f"{{apiVersion: v1, kind: Namespace, metadata: {{name: {each}}}}}\n" for each in ("shop", "pay")
)


def denied(snapshot: Snapshot | None) -> set[str]:
    """Namespaces in which a stand-in denies everything."""
    assert snapshot is not None
    policies = snapshot.objects.authorization_policies
    return {each.meta.namespace for each in policies if each.broken}


@pytest.mark.parametrize("error", [errno.EIO, errno.ESTALE, errno.EMFILE, errno.EACCES])
@pytest.mark.parametrize("afterwards", [POLICY, "{kind: ConfigMap", ""])
def test_a_file_that_cannot_be_read_at_a_first_start_denies_until_it_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: int, afterwards: str
) -> None:
    """It may hold the DENY that was in force before, for whatever namespace."""
    read, broken = directory._read, {"policy.yaml"}

    def failing(file: str) -> bytes:
        if Path(file).name in broken:
            raise OSError(error, os.strerror(error))
        return read(file)

    monkeypatch.setattr(directory, "_read", failing)
    (tmp_path / "spaces.yaml").write_text(SPACES)
    (tmp_path / "policy.yaml").write_text(afterwards)
    clock = SlowClock()
    source = DirectorySource(tmp_path, clock)
    first = source.read()
    assert denied(first) == {"shop", "pay", "default"}
    (problem,) = first.problems
    assert problem.reason == "unreadable"
    assert "everything in its scope is denied" in problem.message
    clock.passed_s += UNREAD_AGAIN_S
    assert source.poll() is None, "nothing has changed"
    (tmp_path / "more.yaml").write_text(SPACES.replace("shop", "later"))
    assert denied(source.poll()) == {"shop", "pay", "later", "default"}
    broken.clear()
    clock.passed_s += UNREAD_AGAIN_S
    snapshot = source.poll()
    assert denied(snapshot) == set()
    assert snapshot is not None
    assert [each.meta.name for each in snapshot.objects.authorization_policies] == (
        ["p"] if afterwards == POLICY else []
    )


def test_a_link_that_leads_nowhere_is_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    """Its target may be on a volume that is not there yet."""
    folder, target = tmp_path / "manifests", tmp_path / "target.yaml"
    folder.mkdir()
    (folder / "spaces.yaml").write_text(SPACES)
    (folder / "policy.yaml").symlink_to(target)
    clock = SlowClock()
    source = DirectorySource(folder, clock)
    first = source.read()
    assert denied(first) == {"shop", "pay", "default"}
    assert len(first.problems) == 1
    target.write_text(POLICY)
    for there in (True, False):
        snapshot = source.poll()
        assert snapshot is not None
        assert denied(snapshot) == set()
        assert [each.meta.name for each in snapshot.objects.authorization_policies] == ["p"]
        if there:
            target.rename(tmp_path / "away")
            clock.passed_s += UNREAD_AGAIN_S


def test_a_folders_link_that_leads_nowhere_at_a_first_start_denies_until_all_behind_it_is_read(
    tmp_path: Path,
) -> None:
    """It may lead to a volume that is not mounted yet, and whose policies were in force before."""
    folder, release, deeper = (tmp_path / each for each in ("manifests", "7", "deeper"))
    folder.mkdir()
    (folder / "spaces.yaml").write_text(SPACES)
    (folder / "current").symlink_to(release)
    source = DirectorySource(folder, LateClock())
    first = source.read()
    assert denied(first) == {"shop", "pay", "default"}
    (problem,) = first.problems
    assert problem.file == str(folder / "current")
    assert problem.message.startswith("a link that leads nowhere; ")
    assert "everything in its scope is denied" in problem.message
    assert source.poll() is None
    release.mkdir()
    (release / "deeper").symlink_to(deeper)
    (release / "policy.yaml").write_text(POLICY)
    unsettled = source.poll()
    assert denied(unsettled) == {"shop", "pay", "default"}
    assert unsettled is not None
    links = {str(folder / "current"), str(folder / "current/deeper")}
    assert {each.file for each in unsettled.problems} == links
    found = source.poll()
    assert denied(found) == {"shop", "pay", "default"}, "a link behind it leads nowhere"
    assert found is not None
    assert "p" in [each.meta.name for each in found.objects.authorization_policies]
    (release / "deeper").unlink()
    assert denied(source.poll()) == set()


@pytest.mark.parametrize("end", ["removed", "a file", "an empty folder"])
def test_doubt_about_a_link_ends_with_the_link(tmp_path: Path, end: str) -> None:
    folder, target = tmp_path / "manifests", tmp_path / "target"
    folder.mkdir()
    (folder / "spaces.yaml").write_text(SPACES)
    (folder / "notes").symlink_to(target)
    source = DirectorySource(folder, OldClock())
    assert denied(source.read()) == {"shop", "pay", "default"}
    if end == "removed":
        (folder / "notes").unlink()
    elif end == "a file":
        target.write_text("no manifest")
    else:
        target.mkdir()
    snapshot = source.poll()
    assert denied(snapshot) == set()
    assert snapshot is not None
    assert snapshot.problems == ()


def test_doubt_about_a_link_outlives_a_restart(tmp_path: Path) -> None:
    """Copies of other files say nothing of what is behind it."""
    folder, state = tmp_path / "manifests", tmp_path / "state"
    folder.mkdir()
    (folder / "spaces.yaml").write_text(SPACES)
    (folder / "current").symlink_to(tmp_path / "nowhere")
    for _ in range(3):
        source = DirectorySource(folder, OldClock(), Kept(state))
        assert denied(source.read()) == {"shop", "pay", "default"}
        assert source.poll() is None


def test_what_stands_behind_a_link_stays_in_force_while_it_leads_nowhere(tmp_path: Path) -> None:
    folder, release = tmp_path / "manifests", tmp_path / "releases"
    folder.mkdir()
    release.mkdir()
    (release / "p.yaml").write_text(POLICY)
    (folder / "current").symlink_to(release)
    source = DirectorySource(folder, OldClock())
    assert len(source.read().objects.authorization_policies) == 1
    release.rename(tmp_path / "away")
    for _ in range(4):
        snapshot = source.poll()
        if snapshot is not None:
            assert len(snapshot.objects.authorization_policies) == 1
            assert [each.reason for each in snapshot.problems] == ["unreadable"]
    (folder / "current").unlink()  # this is meant
    found = source.poll()
    assert found is not None
    assert found.objects.authorization_policies == ()


def test_what_stands_behind_a_link_outlives_a_restart_while_it_leads_nowhere(
    tmp_path: Path,
) -> None:
    """A host that has just booted may not have its volumes yet."""
    folder, release = tmp_path / "manifests", tmp_path / "releases"
    folder.mkdir()
    release.mkdir()
    (folder / "spaces.yaml").write_text(SPACES)
    (release / "p.yaml").write_text(POLICY)
    (folder / "current").symlink_to(release)
    kept = Kept(tmp_path / "state")

    def names(source: DirectorySource) -> list[str]:
        snapshot = source.poll() or source.read()
        return [each.meta.name for each in snapshot.objects.authorization_policies]

    source = DirectorySource(folder, OldClock(), kept)
    assert names(source) == ["p"]
    release.rename(tmp_path / "away")
    for _ in range(2):
        source = DirectorySource(folder, OldClock(), kept)
        source.read()
        assert names(source) == ["p"]
    (tmp_path / "away").rename(release)
    (release / "p.yaml").write_text(POLICY.replace("name: p", "name: q"))
    assert names(source) == ["q"]
    release.rename(tmp_path / "away")
    (folder / "current").unlink()  # this is meant
    assert names(DirectorySource(folder, OldClock(), kept)) == []


def test_a_file_that_cannot_be_read_denies_nothing_when_its_content_is_kept_or_it_is_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of a new file was ever in force, so nothing is lost."""
    folder, state = tmp_path / "manifests", tmp_path / "state"
    folder.mkdir()
    (folder / "p.yaml").write_text(POLICY)
    DirectorySource(folder, OldClock(), Kept(state)).read()
    monkeypatch.setattr(directory, "_read", lambda file: os.open(tmp_path / "none", 0))
    source = DirectorySource(folder, OldClock(), Kept(state))
    snapshot = source.read()
    assert denied(snapshot) == set()
    assert [each.meta.name for each in snapshot.objects.authorization_policies] == ["p"]
    (folder / "new.yaml").write_text(POLICY)
    assert denied(source.poll()) == set()
