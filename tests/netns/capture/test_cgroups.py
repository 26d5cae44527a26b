"""Moving a ztunnel into a cgroup of its own, on the real tree."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

from agent.datapath import cgroups
from tests.support.kernel.netns import eventually, need_root

FAMILY = """
import os, time
for _ in range(3):
    if os.fork() == 0:
        break
os.write(1, bytes([117, 112, 10]))  # "up"
time.sleep(60)
"""


def test_a_process_moves_with_its_children() -> None:
    need_root()
    target = cgroups.create(cgroups.find_root() / f"tk-{os.getpid()}-move")
    parent = subprocess.Popen(
        [sys.executable, "-c", FAMILY], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        assert parent.stdout
        for _ in range(4):
            assert parent.stdout.readline() == "up\n"
        family = cgroups.descendants(parent.pid)
        assert len(family) == 4
        cgroups.move(parent.pid, target)
        assert cgroups.members(target) == family
    finally:
        os.killpg(parent.pid, signal.SIGKILL)
        parent.wait(10)
        eventually(lambda: not cgroups.members(target), "the family is gone")
        cgroups.remove(target)
    cgroups.remove(target)  # already gone: nothing to complain about
