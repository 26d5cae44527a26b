"""Checks of a host that is well, and of one that is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.checks import host
from agent.checks.check import Result
from agent.datapath import programs


@pytest.mark.parametrize(
    ("release", "result"),
    [
        ("5.15.0-91-generic", Result.OK),
        ("6.18.44", Result.OK),
        ("5.10.0-28-amd64", Result.ERROR),
        ("weird", Result.ERROR),
    ],
)
def test_kernel_version(release: str, result: Result) -> None:
    found = host.kernel_version(release)
    assert (found.code, found.result) == ("TUL0101", result)
    assert bool(found.hint) == (result is not Result.OK)


def test_cgroup2_pure_hybrid_and_missing(tmp_path: Path) -> None:
    (tmp_path / "cgroup.procs").touch()
    pure = f"3 1 0:9 / {tmp_path} rw - cgroup2 cgroup2 rw\n"
    assert (
        host.cgroup2(None, f"2 1 0:8 / /sys/fs/cgroup ro - tmpfs tmpfs ro\n{pure}").result
        is Result.OK
    )
    assert host.cgroup2(None, "2 1 0:8 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw\n").error
    assert host.cgroup2(tmp_path / "elsewhere").error


def test_a_host_without_a_bpffs_is_warned_about(tmp_path: Path) -> None:
    found = host._bpffs(tmp_path)
    assert (found.code, found.result) == ("TUL0401", Result.WARNING)
    assert f"mount -t bpf bpf {tmp_path}" in found.hint


def test_what_an_older_kernel_lacks_is_named_and_no_reason_to_refuse_it() -> None:
    oldest = host.features((programs.DIRECT_FEATURE,))
    assert (oldest.code, oldest.result) == ("TUL0503", Result.OK)
    assert all(word in oldest.description for word in ("EPERM", "tcx", "ingress_ifindex"))
    assert "nothing goes direct" not in oldest.description
    assert "all there are" in host.features(tuple(host.WITHOUT)).description


def test_each_feature_that_is_probed_has_a_consequence() -> None:
    assert set(host.WITHOUT) == {*programs.FEATURES, "tcx"}
