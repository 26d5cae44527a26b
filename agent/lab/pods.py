"""A pod's life in the lab: registered with the agent, started, ready, stopped, removed."""

from __future__ import annotations

import os
import pwd
import subprocess
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from agent import fetch
from agent.lab import process, topology, waypoints
from agent.lab.daemons import tail
from agent.lab.netns import NETNS_FOLDER, inside
from agent.lab.process import Launch
from agent.lab.state import LabState, PodRecord
from control.kit.errors import ConfigError, MeshError

STOP_GRACE_S = 3.0
CAPTURE_TIMEOUT_S = 30.0  # as a CNI plugin has before the kubelet tries again
HOSTNAME_CHARS_MAX = 63  # the kubelet cuts longer pod names to this
_TCP_LISTEN = "0A"  # the state's number in /proc/net/tcp
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class LabPods:
    def __init__(
        self, run_dir: Path, state: LabState, progress: Callable[[str], None] = lambda _: None
    ) -> None:
        self.run_dir = run_dir
        self.state = state
        self._progress = progress

    def log(self, pod: PodRecord) -> Path:
        return self.run_dir / "logs" / f"{_flat(pod)}.log"

    def hosts(self, pod: PodRecord) -> Path:
        return self.run_dir / "hosts" / _flat(pod)

    def cgroup(self, pod: PodRecord) -> Path:
        return Path(self.state.cgroup) / _flat(pod)

    def register(self, pod: PodRecord) -> None:
        """Register the pod as a CNI plugin does; MeshError when the agent does not admit it."""
        if self.state.unmeshed:
            return
        body = {
            "namespace": pod.spec.namespace,
            "name": pod.spec.name,
            "uid": pod.uid,
            "netns": str(NETNS_FOLDER / pod.netns),
            "timeout_s": CAPTURE_TIMEOUT_S,
        }
        socket = self._agent(pod)
        answer = fetch.request(socket, "POST", "/pods", body, timeout_s=CAPTURE_TIMEOUT_S + 5)
        fetch.checked(answer, f"pod {pod.spec.key} on {pod.spec.node}: POST /pods")

    def start(self, pod: PodRecord) -> None:
        spec = pod.spec
        self._check(pod)
        if spec.waypoint:
            waypoints.make_token(self.run_dir, pod)
        launch = Launch(
            command=waypoints.command(self.run_dir, pod) if spec.waypoint else spec.command,
            netns=pod.netns,
            cgroup=self.cgroup(pod),
            env=self._process_environment(pod),
            workdir=spec.workdir,
            user=spec.user,
            hostname=spec.name[:HOSTNAME_CHARS_MAX],
            mounts=(
                (str(self.hosts(pod)), "/etc/hosts"),
                *((outside, inner) for inner, outside in spec.files.items()),
            ),
            tmpfs=spec.tmpfs,
        )
        pod.process = process.spawn(launch, self.log(pod))

    def wait_ready(self, pod: PodRecord, stopping: threading.Event) -> None:
        what = f"pod {pod.spec.key}"
        patience = process.Patience(what, pod.spec.ready_timeout_s, self._progress)
        while True:
            ready = pod.process is not None and process.launched(pod.process) and self._ready(pod)
            self.check_alive(pod)
            if ready or stopping.wait(process.POLL_S):
                return
            if patience.is_over():
                raise MeshError(
                    f"pod {pod.spec.key} is not ready after {pod.spec.ready_timeout_s:.0f} s:\n"
                    f"{tail(self.log(pod))}"
                )

    def check_alive(self, pod: PodRecord) -> None:
        if pod.process is None or not process.alive(pod.process):
            raise MeshError(f"pod {pod.spec.key} ended while it started:\n{tail(self.log(pod))}")

    def stop(self, pods: Sequence[PodRecord]) -> None:
        """Stop the main process of each pod, then whatever is left in its cgroup."""
        drains = any(pod.spec.waypoint for pod in pods)
        grace_s = waypoints.STOP_GRACE_S if drains else STOP_GRACE_S
        process.stop([pod.process for pod in pods if pod.process], grace_s)
        for pod in pods:
            process.remove_cgroup(self.cgroup(pod))
            pod.process = None

    def remove(self, pod: PodRecord) -> None:
        """Remove a stopped pod: have the agent forget it, remove its namespace and its files."""
        if not self.state.unmeshed:
            answer = fetch.request(self._agent(pod), "DELETE", f"/pods/{pod.uid}")
            fetch.checked(answer, f"pod {pod.spec.key}: DELETE /pods")
        topology.remove_pod(pod.netns, self.state.node(pod.spec.node).netns, pod.link)
        self.hosts(pod).unlink(missing_ok=True)
        waypoints.forget(self.run_dir, pod)

    def _process_environment(self, pod: PodRecord) -> dict[str, str]:
        own = self.environment(pod)
        return waypoints.settings(own) if pod.spec.waypoint else own

    def environment(self, pod: PodRecord) -> dict[str, str]:
        home = pwd.getpwnam(pod.spec.user).pw_dir if pod.spec.user else "/root"
        return {
            "PATH": _PATH,
            "HOME": home,
            "LANG": "C.UTF-8",
            "HOSTNAME": pod.spec.name,
            "POD_NAME": pod.spec.name,
            "POD_NAMESPACE": pod.spec.namespace,
            "POD_IP": pod.address.v4,
            "POD_IPS": ",".join(pod.address.both),
            "NODE_NAME": pod.spec.node,
            **pod.spec.env,
        }

    def exec_command(self, pod: PodRecord, command: Sequence[str]) -> list[str]:
        """Argument list that runs `command` in the running pod; ConfigError if it does not run."""
        if pod.process is None or not process.alive(pod.process):
            raise ConfigError(
                f"pod {pod.spec.key} does not run; see: tulle lab logs {pod.spec.key}"
            )
        launch = Launch(
            tuple(command), pod.netns, self.cgroup(pod), {}, pod.spec.workdir, pod.spec.user
        )
        text = process.script(launch)
        entered = (
            f"nsenter --mount=/proc/{pod.process.pid}/ns/mnt --uts=/proc/{pod.process.pid}/ns/uts "
        )
        return ["/bin/sh", "-c", text.replace("nsenter ", entered, 1)]

    def run(
        self, pod: PodRecord, command: Sequence[str], data: bytes | None, timeout_s: float
    ) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            self.exec_command(pod, command),
            env=self.environment(pod),
            input=data,
            stdin=subprocess.DEVNULL if data is None else None,
            capture_output=True,
            timeout=timeout_s,
            check=False,
        )

    def call(self, pod: PodRecord, command: Sequence[str]) -> int:
        """Run a command on our own standard streams; its exit code, as in a shell."""
        environment = {**self.environment(pod), "TERM": os.environ.get("TERM", "dumb")}
        code = subprocess.call(self.exec_command(pod, command), env=environment)
        return code if code >= 0 else 128 - code

    def _agent(self, pod: PodRecord) -> Path:
        return self.run_dir / pod.spec.node / "agent.sock"

    def _check(self, pod: PodRecord) -> None:
        spec = pod.spec
        if not Path(spec.workdir).is_dir():
            raise ConfigError(f"pod {spec.key}: workdir {spec.workdir} is not a folder")
        if spec.user:
            try:
                pwd.getpwnam(spec.user)
            except KeyError:
                raise ConfigError(f"pod {spec.key}: no user {spec.user!r} on this host") from None
        for inner, outside in spec.files.items():
            for path in (inner, outside):
                if not Path(path).exists():
                    raise ConfigError(f"pod {spec.key}: files: {path} does not exist")

    def _ready(self, pod: PodRecord) -> bool:
        ready = pod.spec.ready
        if pod.spec.waypoint:
            return waypoints.is_ready(self.run_dir, pod)
        if ready.log:
            return ready.log in self.log(pod).read_text(errors="replace")
        return not ready.tcp or _listens(pod.netns, ready.tcp)


def _listens(netns: str, port: int) -> bool:
    """True when a TCP socket listens there; asks the kernel, so the application sees nothing."""
    with inside(netns):
        tables = [Path(f"/proc/thread-self/net/{name}").read_text() for name in ("tcp", "tcp6")]
    wanted = f":{port:04X}"
    for table in tables:
        for line in table.splitlines()[1:]:
            fields = line.split()
            if fields[3] == _TCP_LISTEN and fields[1].endswith(wanted):
                return True
    return False


def _flat(pod: PodRecord) -> str:
    return f"{pod.spec.namespace}-{pod.spec.name}"
