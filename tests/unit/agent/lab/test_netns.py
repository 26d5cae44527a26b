"""Namespaces that are not there."""

from __future__ import annotations

from agent.lab import netns

ABSENT = "tl-absent-7f3a"


def test_a_namespace_that_is_not_there_has_no_inode_and_is_removed_already() -> None:
    assert netns.inode(ABSENT) is None
    netns.remove(ABSENT)
