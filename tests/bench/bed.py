"""The lab that is measured: two nodes, the same client and servers once enrolled, once not.

    with bed(cores, progress) as made:
        text = made.run("mesh/client", ["wrk", …], timeout_s=10)

Everything runs in cgroups below the lab's own, so that its CPU time is known to the microsecond and
nothing outlives it. Fixed names: a second benchmark finds the first and gives up; what a killed one
left is taken down first.
"""

from __future__ import annotations

import json
import os
import resource
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from agent import fetch
from agent.lab.lab import Lab, Options
from agent.lab.pods import LabPods
from agent.lab.state import LabState
from control.kit.files import write_atomic
from tests.bench import manifests, meter
from tests.bench.model import BenchError

RUN_DIR = Path("/run/tulle-bench")
LOCK = "\0tulle-bench"  # an abstract socket: it goes with its holder, even after a crash
TOOLS = Path(__file__).parent / "tools"
NOFILE_MAX = 65_536  # 5,000 connections take two descriptors each in some proxies
APPLY_TIMEOUT_S = 20.0  # a policy on its way to the nodes, on a machine under load
END_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class Cores:
    """Proxies of both sides on one core, load generator and servers on the other."""

    load: int
    proxy: int

    @property
    def both(self) -> frozenset[int]:
        return frozenset((self.load, self.proxy))

    @classmethod
    def choose(cls) -> Cores:
        usable = sorted(os.sched_getaffinity(0))
        if len(usable) < 2:
            raise BenchError("a benchmark needs two cores: one for the proxies, one for the load")
        return cls(usable[0], usable[1])


class Bed:
    def __init__(self, lab: Lab, state: LabState, cores: Cores) -> None:
        self.lab, self.state, self.cores = lab, state, cores
        self.cgroup = Path(state.cgroup)
        self._pods = LabPods(lab.run_dir, state)

    def address(self, pod: str) -> str:
        return self.state.pods[pod].address.v4

    def netns(self, pod: str) -> str:
        return self.state.pods[pod].netns

    def pod_cgroup(self, pod: str) -> Path:
        return self._pods.cgroup(self.state.pods[pod])

    def mesh(self, node: str) -> tuple[Path, Path]:
        """The cgroups of the node's ztunnel and of its agent, which works for direct flows."""
        return self.cgroup / f"ztunnel-{node}", self.cgroup / f"agent-{node}"

    # --- processes in pods --------------------------------------------------------------------

    def run(self, pod: str, command: Sequence[str], timeout_s: float) -> str:
        """Output of a command in a pod; BenchError when it fails or takes too long."""
        record = self.state.pods[pod]
        try:
            done = self._pods.run(record, command, None, timeout_s)
        except subprocess.TimeoutExpired as exc:
            raise BenchError(f"{command[0]} in {pod} did not end within {timeout_s:.0f} s") from exc
        if done.returncode != 0:
            said = (done.stderr or done.stdout).decode(errors="replace").strip()[-400:]
            raise BenchError(f"{command[0]} in {pod} failed ({done.returncode}): {said}")
        return done.stdout.decode(errors="replace")

    def tool(self, pod: str, name: str, *words: object, timeout_s: float) -> str:
        return self.run(pod, tool_command(name, *words), timeout_s)

    @contextmanager
    def background(
        self, pod: str, command: Sequence[str], output: int | IO[bytes]
    ) -> Iterator[subprocess.Popen[bytes]]:
        """Start a command in a pod; the bed kills it at the end if it still runs."""
        record = self.state.pods[pod]
        made = subprocess.Popen(
            self._pods.exec_command(record, command),
            env=self._pods.environment(record),
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT if output == subprocess.PIPE else subprocess.DEVNULL,
        )
        try:
            yield made
        finally:
            made.kill()
            for stream in (made.stdin, made.stdout):
                if stream is not None:
                    stream.close()
            made.wait(END_TIMEOUT_S)

    # --- the mesh -----------------------------------------------------------------------------

    def metrics(self, node: str) -> str:
        return self._ask(node, "ztunnel.sock", "/metrics").decode()

    def policies(self, node: str) -> str:
        """The text of every policy that this node's ztunnel knows."""
        dump = json.loads(self._ask(node, "ztunnel.sock", "/config_dump"))
        return json.dumps(dump["policies"])

    def shortcut(self, node: str) -> str:
        """State of the shortcut past the host's stack: "on", or the reason why not."""
        told = json.loads(self._ask(node, "agent.sock", "/status"))
        return str(told["direct"].get("shortcut", "unknown"))

    def _ask(self, node: str, admin: str, page: str) -> bytes:
        answer = fetch.request(self.lab.run_dir / node / admin, "GET", page)
        fetch.checked(answer, f"{page} of {node}")
        return answer.body

    def write(self, name: str, text: str) -> None:
        """Path of a file in the folder that the control plane watches."""
        write_atomic(self.lab.manifests_folder / name, text.encode(), 0o600)

    def remove(self, name: str) -> None:
        (self.lab.manifests_folder / name).unlink(missing_ok=True)

    def wait(self, condition: Callable[[], bool], what: str, timeout_s: float) -> None:
        end_s = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > end_s:
                raise BenchError(f"not within {timeout_s:.0f} s: {what}")
            time.sleep(0.1)

    # --- cores --------------------------------------------------------------------------------

    def pin(self) -> None:
        """Put the nodes' mesh processes on the proxies' core. The control plane, elsewhere in a
        cluster, gets the time that the load leaves over on its core."""
        load, proxy = {self.cores.load}, {self.cores.proxy}
        for path in self.cgroup.iterdir():
            if path.is_dir():
                is_mesh = path.name.startswith(("ztunnel-", "agent-"))
                meter.pin(path, proxy if is_mesh else load)
        meter.yield_to_others(self.cgroup / "control")
        os.sched_setaffinity(0, load)  # and with it every process that we start from here on


def tool_command(name: str, *words: object) -> list[str]:
    return [sys.executable, "-I", "-S", str(TOOLS / name), *map(str, words)]


@contextmanager
def bed(
    cores: Cores, progress: Callable[[str], None], ztunnel: Sequence[str] = (), workers: int = 1
) -> Iterator[Bed]:
    """`ztunnel`: the command of another make's, to be measured beside ours, which has `workers`."""
    lab = Lab(RUN_DIR, progress)
    usable = os.sched_getaffinity(0)
    with exclusive(), tempfile.TemporaryDirectory(prefix="tulle-bench-") as work:
        lab.down()  # left by a run that was killed
        folder = Path(work)
        manifests.write_lab(folder, tool_command("serve.py"), ztunnel)
        try:
            lab.up(folder, Options(workers=workers))
            made = Bed(lab, lab.store.load(), cores)
            made.pin()
            yield made
        finally:
            os.sched_setaffinity(0, usable)
            lab.down()


@contextmanager
def exclusive() -> Iterator[None]:
    """One benchmark at a time, and as many open files as the host allows."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = NOFILE_MAX if hard == resource.RLIM_INFINITY else min(hard, NOFILE_MAX)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    with socket.socket(socket.AF_UNIX) as lock:
        try:
            lock.bind(LOCK)
        except OSError:
            raise BenchError("another benchmark is running on this machine") from None
        yield
