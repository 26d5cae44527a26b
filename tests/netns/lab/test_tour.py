"""The main job itself: `make run` must hold in the gate, claim by claim."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.lab.lab import Lab

ROOT = Path(__file__).parents[3]
TOUR_TIMEOUT_S = 180  # under a minute when nothing else runs
DOWN_TIMEOUT_S = 30  # after SIGTERM it takes its lab down


@pytest.fixture
def tour() -> Iterator[subprocess.Popen[str]]:
    """A tour under way; its lab is taken down however the test ends, by its time too."""
    assert not Lab().store.exists(), "a lab is up: tulle lab down"
    running = subprocess.Popen(
        [sys.executable, "-m", "agent.lab.tour"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield running
    finally:
        if running.poll() is None:
            running.terminate()
            try:
                running.communicate(timeout=DOWN_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                running.kill()
                running.communicate()
        Lab(progress=print).down()


def is_down() -> bool:
    return not (
        Path("/run/tulle/lab.json").exists()
        or list(Path("/run/netns").glob("tl-shop-*"))
        or list(Path("/sys/fs/bpf/tulle").glob("n[12]"))
    )


@pytest.mark.timeout(TOUR_TIMEOUT_S + 2 * DOWN_TIMEOUT_S)
def test_every_claim_of_the_tour_holds_and_nothing_is_left_behind(
    tour: subprocess.Popen[str],
) -> None:
    out, err = tour.communicate(timeout=TOUR_TIMEOUT_S)
    assert tour.returncode == 0, out[-3000:] + err[-6000:]
    assert "all of them hold" in out
    assert is_down()
