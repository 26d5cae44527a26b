"""The mesh's own processes in a lab: their command lines, and the wait until each is up."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import agent
from agent.fetch import FetchError, get_json
from agent.lab import foreign, plan, process
from agent.lab.netns import NETNS_FOLDER
from agent.lab.process import Launch, Process
from agent.lab.state import LabState
from control.kit.errors import ControlError, KernelError, MeshError
from control.kit.files import write_atomic

CONTROL_PORT = 15012
CONTROL_NAME = "tulle-control"
CONTROL_TIMEOUT_S = 30.0  # the first start makes keys, on a machine that may be busy
NODE_TIMEOUT_S = 90.0  # the agent's first start compiles its programs
TOKEN_TIMEOUT_S = 30.0
UNINSTALL_TIMEOUT_S = 30.0
LOG_TAIL_LINES = 15
PINS = Path("/sys/fs/bpf/tulle")
_PROGRAMS = {
    "tulle-control": "control.server.main",
    "tulle-agent": "agent.main",
    "tulle-waypoint": "ztunnel.waypoint.main",
    "tulle-ztunnel": "ztunnel.main",
}


def program(name: str) -> tuple[str, ...]:
    """Command of a program: the console script, or the module in a bare checkout."""
    script = Path(sys.executable).parent / name
    if script.exists():
        return (str(script),)
    return (
        sys.executable,
        "-c",
        f"import sys; from {_PROGRAMS[name]} import main; sys.exit(main())",
    )


def environment() -> dict[str, str]:
    root = str(Path(agent.__file__).resolve().parents[1])
    path = os.environ.get("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
    return {"PATH": path, "PYTHONPATH": root, "LANG": "C.UTF-8", "HOME": "/root"}


def token_of(control_state: Path, what: str, *flags: str) -> bytes:
    """A token, made with the control plane's own command; ControlError names `what` it is for."""
    command = [*program("tulle-control"), "token", *flags, "--state", str(control_state)]
    try:
        done = subprocess.run(
            command,
            env=environment(),
            capture_output=True,
            text=True,
            timeout=TOKEN_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ControlError(f"no token for {what} in {TOKEN_TIMEOUT_S:.0f} s") from None
    if done.returncode != 0:
        raise ControlError(f"no token for {what}: {done.stderr.strip()[-400:]}")
    return done.stdout.strip().encode()


class Daemons:
    """Starts the processes in their namespaces and records them in the caller's state."""

    def __init__(
        self, run_dir: Path, state: LabState, progress: Callable[[str], None] = lambda _: None
    ) -> None:
        self.run_dir = run_dir
        self.state = state
        self._progress = progress
        self.control_state = run_dir / "control" / "state"

    def log(self, name: str) -> Path:
        return self.run_dir / "logs" / f"{name}.log"

    def start_control(self) -> Process:
        (self.run_dir / "control").mkdir(mode=0o700, parents=True, exist_ok=True)
        command = (
            *program("tulle-control"),
            *("--manifests", str(self.run_dir / "manifests")),
            *("--state", str(self.control_state)),
            *("--listen", f"[::]:{CONTROL_PORT}"),  # both families
            *("--dns-name", CONTROL_NAME),
            *("--admin", str(self.run_dir / "control" / "admin.sock")),
        )
        return self._spawn("control", plan.control_netns(self.state.lab), command)

    def make_token(self, node: str) -> None:
        """Make a node's token."""
        made = token_of(self.control_state, f"node {node}", "--node", node)
        folder = self.run_dir / node
        folder.mkdir(mode=0o700, exist_ok=True)
        write_atomic(folder / "token", made, 0o600)

    def start_agent(self, node: plan.NodePlan) -> Process:
        command = (*program("tulle-agent"), *self._node_flags(node))
        return self._spawn(f"agent-{node.name}", node.netns, command)

    def start_ztunnel(self, node: plan.NodePlan) -> Process:
        if node.ztunnel:
            return self._start_foreign(node)
        command = (
            *program("tulle-ztunnel"),
            *self._node_flags(node),
            *("--zds", str(self.run_dir / node.name / "zds.sock")),
            *("--workers", str(self.state.workers)),
            *("--addresses", self.state.addresses),
        )
        return self._spawn(f"ztunnel-{node.name}", node.netns, command)

    def _start_foreign(self, node: plan.NodePlan) -> Process:
        settings = foreign.environment(
            node,
            control=f"{plan.uplink(0).v4}:{CONTROL_PORT}",
            control_name=CONTROL_NAME,
            root=self._root,
            folder=self.run_dir / node.name,
            workers=self.state.workers,
        )
        return self._spawn(f"ztunnel-{node.name}", node.netns, node.ztunnel, settings)

    @property
    def _root(self) -> Path:
        return self.control_state / "ca" / "root-cert.pem"

    def wait_control(self, timeout_s: float = CONTROL_TIMEOUT_S) -> None:
        self._wait("control", self.run_dir / "control" / "admin.sock", timeout_s)

    def wait_agent(self, node: str, timeout_s: float = NODE_TIMEOUT_S) -> None:
        self._wait(f"agent-{node}", self.run_dir / node / "agent.sock", timeout_s)

    def wait_ztunnel(self, node: plan.NodePlan, timeout_s: float = NODE_TIMEOUT_S) -> None:
        """Wait until it knows the mesh and the agent's pods; one of another make, until it has the
        pods, by the agent's word: it has no page on this host."""
        name, folder = f"ztunnel-{node.name}", self.run_dir / node.name
        if node.ztunnel:
            self._wait(name, folder / "agent.sock", timeout_s, "/status", serves)
        else:
            self._wait(name, folder / "ztunnel.sock", timeout_s, "/healthz/ready")

    def wait_newest(self, node: plan.NodePlan, timeout_s: float = NODE_TIMEOUT_S) -> None:
        """Wait until the agent has this ztunnel beside an older one, which has lost its pages."""
        name, folder = f"ztunnel-{node.name}", self.run_dir / node.name
        pid = self.state.processes[name].pid

        def has_it(told: Any) -> bool:
            return any(each["pid"] == pid for each in told.get("ztunnels", ()))

        self._wait(name, folder / "agent.sock", timeout_s, "/status", has_it)
        self._wait(name, folder / "ztunnel.sock", timeout_s, "/healthz/ready")

    def uninstall(self, node: plan.NodePlan) -> None:
        """Have the agent remove its state in the kernel; remove it by force if that fails."""
        pins = PINS / node.name
        if pins.exists():
            flags = ["--node", node.name, "--run-dir", str(self.run_dir), "--uninstall"]
            inside = ["nsenter", f"--net={NETNS_FOLDER / node.netns}", "--"]
            entered = inside if (NETNS_FOLDER / node.netns).exists() else []
            try:
                subprocess.run(
                    [*entered, *program("tulle-agent"), *flags],
                    env=environment(),
                    capture_output=True,
                    timeout=UNINSTALL_TIMEOUT_S,
                    check=False,
                )
            except subprocess.TimeoutExpired:
                pass  # the pins are removed below, which detaches every link
        shutil.rmtree(pins, ignore_errors=True)
        if pins.exists():
            raise KernelError(f"{pins} cannot be removed")

    def _node_flags(self, node: plan.NodePlan) -> tuple[str, ...]:
        return (
            *("--node", node.name, "--run-dir", str(self.run_dir)),
            *("--control", f"{plan.uplink(0).v4}:{CONTROL_PORT}", "--control-name", CONTROL_NAME),
            *("--control-root", str(self._root)),
            *("--token", str(self.run_dir / node.name / "token")),
        )

    def _spawn(
        self, name: str, netns: str, command: tuple[str, ...], more: Mapping[str, str] | None = None
    ) -> Process:
        cgroup = self._free_cgroup(name)
        launch = Launch(command, netns, cgroup, environment() | dict(more or {}))
        self.state.processes[name] = process.spawn(launch, self.log(name))
        return self.state.processes[name]

    def _free_cgroup(self, name: str) -> Path:
        """One of its own: the kernel half knows a ztunnel by its cgroup, and two may overlap."""
        folder = Path(self.state.cgroup)
        names = (name if number == 1 else f"{name}.{number}" for number in itertools.count(1))
        return next(folder / each for each in names if not process.has_members(folder / each))

    def _wait(
        self,
        name: str,
        socket: Path,
        timeout_s: float,
        page: str = "/status",
        is_up: Callable[[Any], bool] = lambda _told: True,
    ) -> None:
        """Wait until a page of an admin socket says that it is up; MeshError as soon as it has
        ended."""
        patience = process.Patience(name, timeout_s, self._progress)
        while True:
            problem: object = "the agent says that it does not serve yet"
            try:
                if is_up(get_json(socket, page, timeout_s=5.0)):
                    return
            except FetchError as exc:
                problem = exc
            if not process.alive(self.state.processes[name]):
                raise MeshError(f"{name} ended while it started:\n{tail(self.log(name))}")
            if patience.is_over():
                ended = [key for key, one in self.state.processes.items() if not process.alive(one)]
                also = f" (these have ended: {', '.join(ended)})" if ended else ""
                raise MeshError(
                    f"{name} is not up after {timeout_s:.0f} s: {problem}{also}\n"
                    f"{tail(self.log(name))}"
                )
            time.sleep(process.POLL_S)


def serves(told: Any) -> bool:
    """True if an agent's status has a ztunnel, and no pod that waits for one."""
    waits = any(each["reason"] == "no_ztunnel" for each in told.get("pods", ()))
    return bool(told.get("ztunnels")) and not waits


def tail(log: Path) -> str:
    """Last lines of a log, indented, for an error message."""
    try:
        lines = log.read_text(errors="replace").splitlines()
    except FileNotFoundError:
        return "    (no log)"
    return "\n".join(f"    {line}" for line in lines[-LOG_TAIL_LINES:]) or "    (empty log)"
