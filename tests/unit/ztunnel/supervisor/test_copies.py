"""Copies of a process: what they have, what they never do, and when they end.

The copied process is one of its own: pytest's has threads.
"""

from __future__ import annotations

import subprocess
import sys

DEADLINE_S = 10.0
HEAD = """
import os, signal, sys, time
from ztunnel.supervisor.copies import fork
"""


def ran(script: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", HEAD + script]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=DEADLINE_S, stdin=subprocess.PIPE
    )


def test_it_has_its_end_of_the_pipe_and_where_it_may_write() -> None:
    """It has nothing of another one's pipe, whose end would not be seen."""
    done = ran("""
def life(pipe):
    held = [os.readlink(f"/proc/self/fd/{n}") for n in sorted(map(int, os.listdir("/proc/self/fd")))
            if os.path.exists(f"/proc/self/fd/{n}")]
    assert held[0] == "/dev/null", held
    assert len([each for each in held if each.startswith("socket:")]) == 1, held
    assert len(held) == 4, held
    assert os.getpgid(0) == os.getpid()
    os.write(pipe, b"here")
    return 5
leaked = os.dup(1)
os.set_inheritable(leaked, True)
for each in [fork(life), fork(life)]:
    assert each.pipe.recv(10) == b"here"
    assert each.pipe.recv(10) == b""
    print(os.waitstatus_to_exitcode(os.waitpid(each.pid, 0)[1]))
""")
    assert (done.stdout, done.stderr) == ("5\n5\n", "")


def test_what_its_maker_was_about_to_do_happens_once() -> None:
    """A copy that fails, or ends the interpreter, does not come back out of `fork`."""
    done = ran("""
import atexit
atexit.register(print, "at exit")
def life(pipe):
    raise ValueError("lost")
def end(pipe):
    sys.exit(7)
print("before")
try:
    for each in (fork(life), fork(end)):
        print(os.waitstatus_to_exitcode(os.waitpid(each.pid, 0)[1]))
finally:
    print("after")
""")
    assert done.stdout == "before\n1\n1\nafter\nat exit\n"
    assert "ValueError: lost" in done.stderr


def test_it_ends_with_its_maker() -> None:
    """It holds the output open: the output ends when it has."""
    done = ran("""
def life(pipe):
    os.write(1, b"alive\\n")
    while True:
        time.sleep(60)
each = fork(life)
os.set_blocking(0, True)
while not os.path.exists(f"/proc/{each.pid}"):
    pass
from pathlib import Path
while " S " not in Path(f"/proc/{each.pid}/stat").read_text():
    pass
os.kill(os.getpid(), signal.SIGKILL)
""")
    assert done.stdout == "alive\n"
