"""A whole mesh for tests: the lab with five small pods, and a client that lives in any of them.

    with mesh_bed(folder) as bed:
        assert bed.reach("client", "server", family=6) is Reply.ANSWERED

Sockets are opened by the test itself in a pod's namespace, which is what the kernel half goes by,
so a hundred connections cost no process. Every wait has a deadline. On leaving, the lab goes down
and nothing of it may be left.
"""

from __future__ import annotations

import os
import re
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, TypeVar

from agent.fetch import get_json
from agent.lab import changes, plan, process
from agent.lab.lab import Lab, Options
from agent.lab.netns import inside
from agent.lab.state import PodRecord
from agent.lab.tour.capture import PacketCounts, count
from control.kit.files import write_atomic
from tests.support.kernel.leftovers import none_left
from tests.support.kernel.netns import eventually, need_root

FOLDER = Path(__file__).parent / "mesh_lab"
PINS = Path("/sys/fs/bpf/tulle")
MARKER = "tulle-secret-marker"
SOCKET_S = 8.0  # longer than anything here takes on a busy machine; a hang then is a failure
ENROLLED = ("client", "other", "near", "server")
FAMILIES = (4, 6)
PORT = 8080
POLICY_FILE = "policy.yaml"
LAST_LINES, LINE_CHARS = 20, 240  # a log, in the report of a failed test
_SO_RCVBUFFORCE = 33
_SNIFF_BYTES = 64 * 1024 * 1024
_PACKET_STATISTICS = (263, 6)


class Reply(Enum):
    ANSWERED = "answered"
    CLOSED = "closed"  # accepted, then closed without a byte: what a policy's no looks like
    UNREACHED = "unreached"  # connect() itself failed


@dataclass
class Wire:
    """Packets on one link, kept by the kernel until `counts` asks for them."""

    sock: socket.socket
    seen: PacketCounts = field(default_factory=PacketCounts)
    frames: list[bytes] = field(default_factory=list)

    def counts(self, marker: str = MARKER) -> PacketCounts:
        while True:
            try:
                frame = self.sock.recv(65536 + 64)
            except BlockingIOError:
                break
            self.frames.append(frame)
            count(self.seen, memoryview(frame), marker.encode())
        _, lost = struct.unpack("II", self.sock.getsockopt(*_PACKET_STATISTICS, 8))
        assert lost == 0, f"{lost} packets were not seen: the count proves nothing"
        return self.seen


class Bed:
    def __init__(self, lab: Lab, nodes: tuple[str, str]) -> None:
        self.lab = lab
        self.here, self.there = nodes  # the node of the clients, and that of `server`

    # -- where things are ------------------------------------------------------------------------

    def pod(self, name: str) -> PodRecord:
        return self.lab.pod("plain" if name == "stranger" else "mesh", name)[1]

    def address(self, name: str, family: int) -> str:
        return getattr(self.pod(name).address, f"v{family}")

    def control(self, page: str) -> Any:
        return get_json(self.lab.run_dir / "control" / "admin.sock", page)

    def agent(self, node: str, page: str = "/status") -> Any:
        return get_json(self.lab.run_dir / node / "agent.sock", page)

    def ztunnel(self, node: str, page: str = "/config_dump") -> Any:
        return get_json(self.lab.run_dir / node / "ztunnel.sock", page)

    def log(self, name: str) -> str:
        return (self.lab.run_dir / "logs" / f"{name}.log").read_text(errors="replace")

    def last_words(self) -> str:
        """The ends of all logs: after a failed test nothing else is left of the lab."""
        ends = []
        for path in sorted((self.lab.run_dir / "logs").glob("*.log")):
            lines = path.read_text(errors="replace").splitlines()[-LAST_LINES:]
            ends += [f"-- {path.stem}", *(line[:LINE_CHARS] for line in lines)] if lines else []
        return "\n".join(ends)

    def workers(self, node: str) -> list[int]:
        """Processes of the ztunnel's cgroup but its supervisor."""
        state = self.lab.store.load()
        main = state.processes[f"ztunnel-{node}"]
        cgroup = process.cgroup_of(main)
        text = "" if cgroup is None else (cgroup / "cgroup.procs").read_text()
        return [int(word) for word in text.split() if int(word) != main.pid]

    # -- connections -----------------------------------------------------------------------------

    def socket(self, pod: str, family: int, protocol: int = 0) -> socket.socket:
        kind = socket.AF_INET if family == 4 else socket.AF_INET6
        with inside(self.pod(pod).netns):
            made = socket.socket(kind, socket.SOCK_STREAM, protocol)
        made.settimeout(SOCKET_S)
        return made

    def connect(self, pod: str, target: str, family: int, port: int = PORT) -> socket.socket:
        return self.dial(pod, self.address(target, family), port)

    def dial(
        self, pod: str, address: str, port: int = PORT, timeout_s: float = SOCKET_S
    ) -> socket.socket:
        made = self.socket(pod, 6 if ":" in address else 4)
        made.settimeout(timeout_s)
        try:
            made.connect((address, port))
        except OSError:
            made.close()
            raise
        return made

    def reach(self, pod: str, target: str, family: int = 4, port: int = PORT) -> Reply:
        """One connection, one line; a timeout is neither a yes nor a no and fails the test."""
        return self.ask(pod, self.address(target, family), port)

    def ask(self, pod: str, address: str, port: int = PORT, timeout_s: float = SOCKET_S) -> Reply:
        try:
            sock = self.dial(pod, address, port, timeout_s)
        except TimeoutError:
            raise
        except OSError:
            return Reply.UNREACHED
        with sock:
            return Reply.ANSWERED if speak(sock) else Reply.CLOSED

    def yes(self, *cases: tuple[str, str, int]) -> bool:
        return all(
            self.reach(pod, target, family, port) is Reply.ANSWERED
            for pod, target, port in cases
            for family in FAMILIES
        )

    def no(self, *cases: tuple[str, str, int]) -> bool:
        return all(
            self.reach(pod, target, family, port) is not Reply.ANSWERED
            for pod, target, port in cases
            for family in FAMILIES
        )

    @contextmanager
    def wire(self, node: str) -> Iterator[Wire]:
        """The link between this node and the router."""
        router = plan.router_netns(self.lab.store.load().lab)
        with sniffer(router, f"to-{node}") as made:
            yield made

    @contextmanager
    def cable(self, name: str) -> Iterator[Wire]:
        """The link between a pod and its node, which connections on one node take too."""
        pod = self.pod(name)
        node = self.lab.store.load().node(pod.spec.node)
        with sniffer(node.netns, pod.link) as made:
            yield made

    # -- changes ---------------------------------------------------------------------------------

    def apply(self, text: str) -> None:
        changes.apply(self.lab, text, "tests.yaml")

    def delete(self, kind: str, namespace: str, name: str) -> None:
        changes.delete(self.lab, kind, namespace, name)

    @contextmanager
    def policy(self, *texts: str) -> Iterator[None]:
        """In force while the context lasts; waited for neither way."""
        self.write_policy(*texts)
        try:
            yield
        finally:
            (self.lab.manifests_folder / POLICY_FILE).unlink()

    def write_policy(self, *texts: str) -> None:
        data = "---\n".join(texts).encode()
        write_atomic(self.lab.manifests_folder / POLICY_FILE, data, 0o600)

    def in_force(self, node: str, policy: str) -> bool:
        """True if every worker of this node has the policy, and all that the node was told."""
        dump = self.ztunnel(node)
        listed = policy in {each["name"] for each in dump["policies"]}
        return listed and self.is_current(dump)

    @staticmethod
    def is_current(dump: Any) -> bool:
        """True for a page that says that it is in force in every worker."""
        return dump["control"]["settled"] and all(each["current"] for each in dump["workers"])

    def mode(self, namespace: str, label: str) -> None:
        changes.label(self.lab, "Namespace", "", namespace, [f"istio.io/dataplane-mode{label}"])

    def captured(self) -> set[str]:
        """Pods that the agents report captured and the control plane serves as HBONE."""
        return self._reported() & self._hbone(self.here)

    def _reported(self) -> set[str]:
        pods = [pod for node in (self.here, self.there) for pod in self.agent(node)["pods"]]
        return {pod["name"] for pod in pods if pod["state"] == "captured"}

    def _hbone(self, node: str) -> set[str]:
        return {name for name, hbone in self.served(node).items() if hbone}

    def served(self, node: str) -> dict[str, bool]:
        """True when this node's ztunnel believes that the pod speaks HBONE."""
        dump = self.ztunnel(node)
        return {each["name"]: each["protocol"] == "HBONE" for each in dump["workloads"]}

    def wait_captured(self, names: tuple[str, ...] = ENROLLED) -> None:
        """Agents and both ztunnels agree: ztunnels take a leaving pod for HBONE a while longer.
        One that asks on demand knows its own node's pods at first."""

        def agreed() -> bool:
            views = [self._hbone(self.here), self._hbone(self.there)]
            if self.lab.store.load().addresses != "all":
                views = [views[0] | views[1]]
            return all(view == set(names) for view in (self._reported(), *views))

        eventually(agreed, f"exactly {names} captured", 20)


AnyBed = TypeVar("AnyBed", bound=Bed)


@contextmanager
def sniffer(netns: str, link: str) -> Iterator[Wire]:
    with inside(netns):
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _SNIFF_BYTES)
        sock.bind((link, 0))
    sock.setblocking(False)
    with sock:
        yield Wire(sock)


def speak(sock: socket.socket, text: str = MARKER) -> str:
    """One line there and back; the client's address as the server saw it, '' when refused."""
    try:
        sock.sendall(f"{text}\n".encode())
        data = b""
        while not data.endswith(b"\n"):
            piece = sock.recv(65536)
            if not piece:
                return ""
            data += piece
    except ConnectionError:
        return ""
    host, port, said = data.decode().split(" ", 2)
    assert said == f"{text}\n"
    return f"{host.removeprefix('::ffff:')} {port}"


def is_closed(sock: socket.socket) -> bool:
    """True when the other side ended it, now or within the socket's timeout."""
    try:
        return sock.recv(1) == b""
    except TimeoutError:
        return False
    except ConnectionError:
        return True


@contextmanager
def mesh_bed(
    folder: Path,
    workers: int = 1,
    addresses: str = "all",
    *,
    kind: type[AnyBed] = Bed,  # type: ignore[assignment]  # a default for a type variable
    manifests: Path = FOLDER,
    enrolled: tuple[str, ...] = ENROLLED,
) -> Iterator[AnyBed]:
    """`enrolled`: pods that are waited for; none: the caller waits itself."""
    need_root()
    short = os.getpid() % 100000
    names = {"telab": f"te{short}x", "te1": f"te{short}a", "te2": f"te{short}b"}
    source = folder / "lab"
    source.mkdir()
    for path in manifests.iterdir():
        if path.is_file():
            text = re.sub(r"\b(telab|te1|te2)\b", lambda found: names[found[0]], path.read_text())
            (source / path.name).write_text(text)
    lab = Lab(folder / "run")
    with none_left(lab.run_dir):
        try:
            lab.up(source, Options(workers=workers, addresses=addresses))
            bed = kind(lab, (names["te1"], names["te2"]))
            if enrolled:
                bed.wait_captured(enrolled)
            yield bed
        finally:
            lab.down()


def soon(condition: Callable[[], bool], what: str) -> None:
    eventually(condition, what, 10.0)
