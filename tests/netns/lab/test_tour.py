"""The main job itself: `make run` must hold in the gate, claim by claim."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
TOUR_TIMEOUT_S = 180  # under a minute when nothing else runs


def test_every_claim_of_the_tour_holds_and_nothing_is_left_behind() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "agent.lab.tour"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=TOUR_TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]
    assert "all of them hold" in done.stdout
    assert not Path("/run/tulle/lab.json").exists()
    assert not list(Path("/run/netns").glob("tl-shop-*"))
    assert not list(Path("/sys/fs/bpf/tulle").glob("n[12]"))
