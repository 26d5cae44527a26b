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


def test_a_process_is_found_out_of_a_cgroup_namespace() -> None:
    """As an agent in a container sees the kubelet: `/proc` says a path that leads nowhere."""
    need_root()
    root = cgroups.find_root()
    name = f"tk-{os.getpid()}"
    inner, outer = cgroups.create(root / f"{name}-in"), cgroups.create(root / f"{name}-out")
    code = (
        "import sys; from pathlib import Path\n"
        "from agent.datapath.process_cgroup import directory_of\n"
        "print(open('/proc/' + sys.argv[1] + '/cgroup').read().splitlines()[-1])\n"
        "print(directory_of(int(sys.argv[1]), Path(sys.argv[2])))"
    )
    command = f'echo $$ > {inner}/cgroup.procs && exec unshare --cgroup "$@"'
    kubelet = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        (outer / "cgroup.procs").write_text(str(kubelet.pid))
        asked = [sys.executable, "-c", code, str(kubelet.pid), str(root)]
        done = subprocess.run(
            ["sh", "-c", command, "sh", *asked],
            capture_output=True, text=True, timeout=30, check=True,
        )  # fmt: skip
        assert done.stdout.splitlines() == [f"0::/../{outer.name}", str(outer)]
    finally:
        kubelet.kill()
        kubelet.wait(10)
        for directory in (inner, outer):
            eventually(lambda directory=directory: not cgroups.members(directory), "it is empty")
            cgroups.remove(directory)
