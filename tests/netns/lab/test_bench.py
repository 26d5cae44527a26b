"""The benchmark runs: a short look at two systems; nothing is left behind. No figure is judged."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.bench.bed import RUN_DIR
from tests.bench.manifests import LAB
from tests.support.kernel.leftovers import none_left
from tests.support.kernel.netns import eventually, need_root

pytestmark = pytest.mark.alone

ROOT = Path(__file__).resolve().parents[3]
RUN_TIMEOUT_S = 60
END_TIMEOUT_S = 30


@contextmanager
def bench(folder: Path, *words: str) -> Iterator[subprocess.Popen[str]]:
    """Foreign load is no reason to fail here: nothing is judged."""
    flags = ["--foreign", "100", "--topology", "cross", "--json", str(folder / "run.json")]
    one = subprocess.Popen(
        [sys.executable, "-m", "tests.bench", *flags, "--rounds", "1", "--seconds", "1", *words],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield one
    finally:
        if one.poll() is None:
            one.send_signal(signal.SIGINT)
            one.communicate(timeout=END_TIMEOUT_S)


def test_a_short_run_has_figures_and_leaves_nothing(tmp_path: Path) -> None:
    need_root()
    words = ("--cases", "c1,pingpong", "--systems", "tulle,envoy")
    with none_left(RUN_DIR), bench(tmp_path, *words) as one:
        out, err = one.communicate(timeout=RUN_TIMEOUT_S)
    assert one.returncode == 0, err
    assert "Tulle/Envoy" in out
    run = json.loads((tmp_path / "run.json").read_text())
    measured = {(each["case"], each["system"]) for each in run["measurements"]}
    assert measured == {(c, s) for c in ("c1", "pingpong") for s in ("Tulle", "Envoy")}
    assert all(each["values"]["rps"] > 0 for each in run["measurements"])
    assert (tmp_path / "run.svg").read_text().startswith("<svg")


def test_an_interrupted_run_leaves_nothing(tmp_path: Path) -> None:
    need_root()
    words = ("--cases", "c64", "--systems", "tulle")
    with none_left(RUN_DIR), bench(tmp_path, *words) as one:
        eventually(lambda: any(Path("/run/netns").glob(f"tl-{LAB}-*")), "the lab begins", 20)
        one.send_signal(signal.SIGINT)
        _, err = one.communicate(timeout=END_TIMEOUT_S)
    assert one.returncode == 130, err
