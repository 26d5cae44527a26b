"""Paths of a host as a container sees them."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.datapath.host_root import below, is_namespace, visible_namespace


@pytest.fixture
def host(tmp_path: Path) -> Path:
    (tmp_path / "run/netns").mkdir(parents=True)
    (tmp_path / "run/netns/cni-1").touch()
    (tmp_path / "var/lib").mkdir(parents=True)
    (tmp_path / "var/run").symlink_to("/run")  # as Debian has it
    (tmp_path / "var/lib/up").symlink_to("../../run/./netns")
    (tmp_path / "loop").symlink_to("/loop")
    (tmp_path / "out").symlink_to("/../../../run")
    return tmp_path


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/run/netns/cni-1", "run/netns/cni-1"),
        ("/var/run/netns/cni-1", "run/netns/cni-1"),
        ("//var//run/./netns/cni-1", "run/netns/cni-1"),
        ("/var/lib/up/cni-1", "run/netns/cni-1"),
        ("/out/netns/cni-1", "run/netns/cni-1"),  # nothing lies above the host's root
        ("/../../run/netns/cni-1", "run/netns/cni-1"),
        ("/var/run/netns/absent", "run/netns/absent"),
        ("/absent/x", "absent/x"),
    ],
)
def test_links_mean_the_hosts_files(host: Path, path: str, expected: str) -> None:
    assert below(str(host), path) == str(host / expected)


def test_a_link_to_itself_leads_nowhere(host: Path) -> None:
    assert below(str(host), "/loop/x") is None


def test_a_namespace_that_is_here_is_taken_here(host: Path) -> None:
    assert is_namespace("/proc/self/ns/net")
    assert visible_namespace("/proc/self/ns/net", str(host)) == "/proc/self/ns/net"


def test_a_file_that_is_none_is_looked_for_at_the_host(host: Path) -> None:
    """Without mount propagation a new namespace is an empty file here."""
    own = host / "own"
    own.touch()
    assert not is_namespace(str(own))
    assert not is_namespace("a\0b")
    assert visible_namespace(str(own), str(host)) == str(own)  # nor there: whoever opens it says so
