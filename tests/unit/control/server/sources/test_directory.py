"""The watched folder: what settled, what is being written, what went away."""

from __future__ import annotations

import asyncio
import errno
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from control.server.sources import directory
from control.server.sources.directory import UNREAD_AGAIN_S, DirectorySource
from control.server.sources.kept import Kept
from control.server.sources.snapshot import Snapshot
from tests.support.manifests import pod


class LateClock:
    """A clock at the moment of every file's last write, so nothing ever looks old."""

    def now(self) -> datetime:
        return datetime.fromtimestamp(0, UTC)

    def monotonic_s(self) -> float:
        return 0.0


class OldClock(LateClock):
    """A clock far in the future: every file has been quiet for long."""

    def now(self) -> datetime:
        return datetime.fromtimestamp(0, UTC) + timedelta(days=36500)


class SlowClock(OldClock):
    passed_s = 0.0

    def monotonic_s(self) -> float:
        return self.passed_s


def pods(snapshot: Snapshot | None) -> list[str] | None:
    return None if snapshot is None else [each.meta.name for each in snapshot.objects.pods]


def test_a_file_counts_once_two_looks_agree(tmp_path: Path) -> None:
    source = DirectorySource(tmp_path, LateClock())
    assert pods(source.read()) == []
    (tmp_path / "a.yaml").write_text("apiVersion: v1")
    assert source.poll() is None
    (tmp_path / "a.yaml").write_text(pod("a"))
    assert source.poll() is None
    assert pods(source.poll()) == ["a"]
    assert source.poll() is None


def test_a_quiet_file_counts_at_once(tmp_path: Path) -> None:
    source = DirectorySource(tmp_path, OldClock())
    source.read()
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/a.json").write_text(
        '{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "j"}}'
    )
    assert pods(source.poll()) == ["j"]


def test_a_file_is_gone_when_two_looks_miss_it(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(pod("a"))
    source = DirectorySource(tmp_path, OldClock())
    assert pods(source.read()) == ["a"]
    (tmp_path / "a.yaml").unlink()
    assert source.poll() is None
    assert pods(source.poll()) == []


def test_an_editor_that_renames_changes_the_content_only(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(pod("a"))
    source = DirectorySource(tmp_path, OldClock())
    source.read()
    os.rename(tmp_path / "a.yaml", tmp_path / "a.yaml~")
    assert source.poll() is None
    (tmp_path / ".a.yaml.new").write_text(pod("b"))
    os.rename(tmp_path / ".a.yaml.new", tmp_path / "a.yaml")
    assert pods(source.poll()) == ["b"]


def test_a_folder_that_vanishes_keeps_the_last_good_state(tmp_path: Path) -> None:
    folder = tmp_path / "m"
    folder.mkdir()
    (folder / "a.yaml").write_text(pod("a"))
    source = DirectorySource(folder, OldClock())
    source.read()
    folder.rename(tmp_path / "away")
    snapshot = source.poll()
    assert pods(snapshot) == ["a"]
    assert snapshot is not None
    assert [each.reason for each in snapshot.problems] == ["unreadable"]
    assert source.poll() is None
    assert source.poll() is None
    (tmp_path / "away").rename(folder)
    snapshot = source.poll()
    assert snapshot is not None
    assert snapshot.problems == ()


def test_a_pipe_in_a_files_place_makes_nobody_wait(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    writer = os.open(tmp_path / "pipe.yaml", os.O_RDWR)  # has a writer that says nothing
    try:
        with pytest.raises(BlockingIOError):
            directory._read(str(tmp_path / "pipe.yaml"))
    finally:
        os.close(writer)


@pytest.mark.parametrize("error", [errno.EIO, errno.ESTALE, errno.EMFILE, errno.EACCES])
def test_a_file_that_could_not_be_read_counts_once_it_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    """A disk that recovers, or descriptors that come back, leave no trace in the file."""
    read, broken = directory._read, {"new.yaml", "changed.yaml"}

    def failing(file: str) -> bytes:
        if Path(file).name in broken:
            raise OSError(error, os.strerror(error))
        return read(file)

    (tmp_path / "changed.yaml").write_text(pod("before"))
    clock = SlowClock()
    source = DirectorySource(tmp_path, clock)
    source.read()
    monkeypatch.setattr(directory, "_read", failing)
    (tmp_path / "changed.yaml").write_text(pod("afterwards"))
    (tmp_path / "new.yaml").write_text(pod("new"))
    clock.passed_s += UNREAD_AGAIN_S
    snapshot = source.poll()
    assert pods(snapshot) == ["before"], "the last good state"
    assert snapshot is not None
    assert {each.reason for each in snapshot.problems} == {"unreadable"}
    clock.passed_s += UNREAD_AGAIN_S
    assert source.poll() is None, "no news"
    broken.clear()
    assert source.poll() is None, "not at each look"
    clock.passed_s += UNREAD_AGAIN_S
    snapshot = source.poll()
    assert pods(snapshot) == ["afterwards", "new"]
    assert snapshot is not None
    assert snapshot.problems == ()
    clock.passed_s += UNREAD_AGAIN_S
    assert source.poll() is None


def test_the_next_look_waits_less_than_a_second_whatever_the_last_one_took(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Thousands of new objects take a second or two; a change after them must not take a minute."""
    clock = SlowClock()
    source = DirectorySource(tmp_path, clock)
    pauses: list[float] = []

    def load(file: str, data: bytes) -> bool:
        clock.passed_s += 2.0
        return True

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)
        (tmp_path / "a.yaml").write_text(pod("a") + "#" * len(pauses))

    async def whole() -> None:
        watch = source.watch()
        for _ in range(4):
            await anext(watch)

    monkeypatch.setattr(source._folder, "load", load)
    monkeypatch.setattr(asyncio, "sleep", sleep)
    asyncio.run(whole())
    assert max(pauses) == directory.REST_MAX_S


POLICY = """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: p, namespace: shop}
spec: {action: DENY, rules: [{to: [{operation: {ports: ["80"]}}]}]}
"""


def restarted(folder: Path, state: Path) -> Snapshot:
    return DirectorySource(folder, OldClock(), Kept(state)).read()


def test_the_last_good_content_of_a_file_outlives_the_process(tmp_path: Path) -> None:
    folder, state = tmp_path / "manifests", tmp_path / "state"
    folder.mkdir()
    (folder / "p.yaml").write_text(POLICY)
    good = restarted(folder, state).objects.authorization_policies
    assert [each.meta.name for each in good] == ["p"]
    (folder / "p.yaml").write_text("]: not yaml")
    snapshot = restarted(folder, state)
    assert snapshot.objects.authorization_policies == good
    assert "last good content stays in force" in snapshot.problems[0].message
    (folder / "p.yaml").write_text(POLICY.replace("DENY", "DENIED"))
    snapshot = restarted(folder, state)
    assert snapshot.objects.authorization_policies == good
    assert "last good version stays in force" in snapshot.problems[0].message


def test_what_was_removed_while_nobody_looked_is_gone(tmp_path: Path) -> None:
    folder, state = tmp_path / "manifests", tmp_path / "state"
    folder.mkdir()
    (folder / "p.yaml").write_text(POLICY)
    restarted(folder, state)
    (folder / "p.yaml").unlink()
    assert restarted(folder, state).objects.authorization_policies == ()
    assert list(state.iterdir()) == []


def test_a_copy_that_is_damaged_is_as_good_as_none(tmp_path: Path) -> None:
    folder, state = tmp_path / "manifests", tmp_path / "state"
    folder.mkdir()
    (folder / "p.yaml").write_text(POLICY)
    restarted(folder, state)
    for copy in state.iterdir():
        assert copy.stat().st_mode & 0o777 == 0o600
        copy.write_bytes(b"\x00]:")
    assert len(restarted(folder, state).objects.authorization_policies) == 1


def test_a_disk_that_refuses_costs_the_copies_and_nothing_else(tmp_path: Path) -> None:
    folder, state = tmp_path / "manifests", tmp_path / "state"
    folder.mkdir()
    source = DirectorySource(folder, OldClock(), Kept(state))
    state.rmdir()
    state.write_text("no folder any more: every call on it fails, for root too")
    assert pods(source.read()) == []
    (folder / "a.yaml").write_text(pod("a"))
    assert pods(source.poll()) == ["a"]
    (folder / "a.yaml").unlink()
    assert source.poll() is None
    assert pods(source.poll()) == []


def test_files_that_are_renamed_are_no_duplicates(tmp_path: Path) -> None:
    for number in range(20):
        (tmp_path / f"{number}.yaml").write_text(pod(f"p{number}"))
    source = DirectorySource(tmp_path, OldClock())
    source.read()
    for number in range(20):
        (tmp_path / f"{number}.yaml").rename(tmp_path / f"x{number}.yaml")
    moved, gone = source.poll(), source.poll()
    for snapshot in (moved, gone):
        assert snapshot is not None
        assert snapshot.problems == ()
        assert snapshot.counts()["Pod"] == 20
    assert moved is not None
    assert len(moved.changed) == 20
    assert gone is not None
    assert gone.changed == {}


def test_a_file_cut_in_the_middle_of_being_written_loses_nothing(tmp_path: Path) -> None:
    clock = SlowClock()
    path = tmp_path / "a.yaml"
    path.write_text(pod("a") + pod("b"))
    source = DirectorySource(tmp_path, clock)
    source.read()
    clock.now = LateClock().now  # type: ignore[method-assign]  # every file was written just now
    path.write_text(pod("a"))
    assert [source.poll() for _ in range(3)] == [None, None, None]
    clock.passed_s += directory.SHRUNK_QUIET_S
    assert source.poll() is None
    path.write_text(pod("a") + pod("c"))
    source.poll()
    assert pods(source.poll()) == ["a", "c"], "as long as it was: two looks are enough"
    path.write_text(pod("a"))
    source.poll()
    clock.passed_s += directory.SHRUNK_QUIET_S + 0.1
    assert pods(source.poll()) == ["a"], "it was meant"


POLICIES = POLICY.replace('["80"]', '["80", "8080"]')
LONG, SHORT = pod("a", address="10.1.0.10"), pod("a", address="10.1.0.1")


@pytest.mark.parametrize(
    ("before", "after", "counts"),
    [
        (LONG, SHORT, True),
        (pod("a") + "# end\n", pod("a"), True),
        (pod("a") + pod("b"), pod("a"), False),
        (pod("a") + pod("bcd"), pod("a") + pod("b"), False),
        (LONG, LONG.rstrip()[:-2], False),
        (POLICIES, POLICY, False),
    ],
    ids=["value", "comment", "object", "name", "broken", "policy"],
)
def test_a_file_that_shrank_in_place_waits_if_something_may_be_missing(
    tmp_path: Path, before: str, after: str, counts: bool
) -> None:
    """A second file in the place of a second one has the first one's inode: pods that became ready
    stayed unhealthy for half a second more."""
    path = tmp_path / "a.yaml"
    path.write_text(before)
    source = DirectorySource(tmp_path, LateClock())
    source.read()
    path.write_text(after)
    assert len(after) < len(before)
    assert source.poll() is None
    assert (source.poll() is not None) == counts
    path.unlink()
    source.poll()
    source.poll()
    assert source._shrunk == {}, "nothing is kept of a file that is gone"


def test_a_smaller_file_in_place_of_another_counts_at_once(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(pod("a") + pod("b"))
    source = DirectorySource(tmp_path, LateClock())
    source.read()
    (tmp_path / ".new").write_text(pod("a"))
    (tmp_path / ".new").rename(tmp_path / "a.yaml")
    source.poll()
    assert pods(source.poll()) == ["a"]


def test_a_start_reads_nothing_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, state = tmp_path / "manifests", tmp_path / "state"
    folder.mkdir()
    for name in ("a", "b"):
        (folder / f"{name}.yaml").write_text(pod(name))
    restarted(folder, state)
    (folder / "b.yaml").write_text(pod("c"))
    source = DirectorySource(folder, OldClock(), Kept(state))
    loaded: list[str] = []
    load = source._folder.load

    def count(file: str, data: bytes) -> bool:
        loaded.append(Path(file).name)
        return load(file, data)

    monkeypatch.setattr(source._folder, "load", count)
    assert pods(source.read()) == ["a", "c"]
    assert sorted(loaded) == ["a.yaml", "b.yaml", "b.yaml"]
    assert source.poll() is None


def test_a_file_that_has_to_be_seen_once_more_is_looked_at_sooner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = DirectorySource(tmp_path, LateClock())
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 2:
            (tmp_path / "a.yaml").write_text(pod("a"))

    async def whole() -> None:
        watch = source.watch()
        await anext(watch)
        assert pods(await anext(watch)) == ["a"]

    monkeypatch.setattr(asyncio, "sleep", sleep)
    asyncio.run(whole())
    assert pauses == [directory.POLL_S, directory.POLL_S, directory.AGAIN_S]
