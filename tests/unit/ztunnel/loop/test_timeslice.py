"""A short slice is asked for, and nothing else about the process changes."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

# In a process of its own: the tests keep their slice.
ASK = """
import os, sys
from ztunnel.loop.timeslice import shorten
{before}
print(shorten(), os.sched_getscheduler(0), os.nice(0))
"""


def ask(before: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", ASK.format(before=before)],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.split()


def test_a_process_keeps_its_policy_and_its_priority() -> None:
    if os.uname().machine not in ("x86_64", "aarch64"):
        pytest.skip("the numbers of the system calls are known for two machines")
    nicer = min(os.nice(0) + 3, 19)  # a run may be as nice as can be
    assert ask("os.nice(3)") == ["True", str(os.SCHED_OTHER), str(nicer)]


def test_another_policy_is_somebodys_choice() -> None:
    choose = "os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))"
    assert ask(choose) == ["False", str(os.SCHED_BATCH), str(os.nice(0))]
