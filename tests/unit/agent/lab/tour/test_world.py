"""Results and waits of the tour."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agent.fetch import FetchError
from agent.lab.lab import Lab
from agent.lab.tour.report import ClaimFailed, Report
from agent.lab.tour.world import CommandResult, World, rss_mib
from tests.support.clock import FakeClock


def test_a_command_is_quoted_by_what_it_said() -> None:
    assert CommandResult(0, " out\n", "err").said == "out"
    assert CommandResult(7, "", "err\n").said == "err"
    assert CommandResult(7, "", "").said == "exit code 7"


def test_a_wait_ends_with_its_condition_or_the_tour(tmp_path: Path) -> None:
    world = World(Lab(tmp_path), Report(FakeClock()))
    tries = iter([FetchError("no socket yet"), True])

    def holds() -> bool:
        found = next(tries)
        if isinstance(found, FetchError):
            raise found
        return found

    assert world.until(holds, "it is up") >= 0
    with pytest.raises(ClaimFailed, match="not within 0 s: never"):
        world.until(lambda: False, "never", timeout_s=0)


def test_a_process_takes_some_memory() -> None:
    assert 1 < rss_mib(os.getpid()) < 4096
