"""Two commands side by side (.ci/beside.py): both run to their end, no line is cut."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

BESIDE = Path(__file__).resolve().parents[2] / ".ci/beside.py"
DEADLINE_S = 30


def run(shown: str, kept: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, str(BESIDE), shown, kept],
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
    )
    return done.returncode, done.stdout


@pytest.mark.parametrize(
    ("shown", "kept", "code"),
    [("true", "true", 0), ("exit 3", "true", 1), ("true", "exit 3", 1), ("exit 1", "exit 2", 1)],
)
def test_either_fails_the_whole(shown: str, kept: str, code: int) -> None:
    assert run(shown, kept)[0] == code


def test_the_kept_output_comes_in_one_piece(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    # Each waits for the other, so neither could go on if one came after the other. The line of the
    # one that is shown is whole by then: the other's end may come at any time.
    code, out = run(
        f"printf a; echo b; echo go > {fifo}", f"printf x; read it < {fifo}; echo y >&2"
    )
    assert code == 0
    assert "ab\n" in out
    assert "xy\n" in out
    assert "beside, done after" in out


def test_a_failure_says_its_code() -> None:
    assert "ended with 7" in run("true", "exit 7")[1]


def test_an_end_from_outside_ends_both() -> None:
    shown, kept = "echo $$; exec tail -f /dev/null", "exec tail -f /dev/null"
    with subprocess.Popen(
        [sys.executable, str(BESIDE), shown, kept], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        first = int(process.stdout.readline())
        os.kill(process.pid, signal.SIGTERM)
        assert process.wait(DEADLINE_S) == 1
    assert not Path("/proc", str(first)).exists()
