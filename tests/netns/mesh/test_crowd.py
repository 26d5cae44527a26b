"""Pods that come and go: the node's processes and the kernel hold nothing of them."""

from __future__ import annotations

import pytest

from tests.support.lab.crowd import Crowd
from tests.support.lab.mesh_bed import Bed, soon

PODS, ROUNDS = 20, 3
SLACK = PODS // 2  # connections that other things have open; a leak is one for each pod, or more


def test_nothing_is_left_of_pods_that_have_gone(bed: Bed) -> None:
    crowd = Crowd(bed.lab, bed.here, "passing")
    try:
        crowd.label(enrolled=True)
        rounds = [[crowd.pod("c", r * PODS + n, n) for n in range(PODS)] for r in range(ROUNDS + 1)]
        assert crowd.come_and_go(rounds[0]) == []  # what is made once is there
        before = crowd.held()
        for pods in rounds[1:]:
            assert crowd.come_and_go(pods) == []
        found: dict[str, int] = {}

        def is_level() -> bool:
            found.update(crowd.held())
            return all(found[name] <= before[name] + SLACK for name in before)

        try:
            soon(is_level, "as much held as before")
        except pytest.fail.Exception:
            pytest.fail(f"held before: {before}; now: {found}")
    finally:
        crowd.remove_all()
