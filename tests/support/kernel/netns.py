"""Small real networks for tests: namespaces on one switch, and processes that work inside them.

    with Network("tk") as network:
        web = network.pod("web", "10.77.0.2", "fd77::2")
        with Process() as ztunnel:
            ztunnel.join_cgroup(path)
            listener = ztunnel.listen(web, "::", 0)

A `Process` is a real process of its own (own cgroup membership) that opens sockets on command and
passes them back, so a test reads like one program. Everything is removed on leaving the `with`,
also after a failure; names are unique, so tests may run side by side.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

_numbers = itertools.count(1)
_held: list[socket.socket] = []  # a child's listeners that it does not hand over
_REPLY_BYTES_MAX = 65536
DEADLINE_S = 10.0
_IP_TRANSPARENT = 19
_IPV6_FREEBIND = 78

Address = tuple[str, int]


def need_root() -> None:
    """Without root a test skips; under CI=true that would hide a hole, so there it fails."""
    if os.geteuid() == 0:
        return
    if os.environ.get("CI") == "true":
        pytest.fail("netns tests need root, and CI=true allows no skip")
    pytest.skip("needs root")


def eventually(
    condition: Callable[[], bool], what: str = "condition", deadline_s: float = DEADLINE_S
) -> None:
    """Poll with a deadline; the pause is only there to leave the CPU to what we wait for."""
    end = time.monotonic() + deadline_s
    while not condition():
        if time.monotonic() > end:
            pytest.fail(f"not within {deadline_s} s: {what}")
        time.sleep(0.005)


def run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout


def _unique(prefix: str, name: str) -> str:
    return f"{prefix}-{os.getpid()}-{next(_numbers)}-{name}"


class Pod:
    """One namespace with eth0 on the network's switch."""

    def __init__(self, namespace: str, port: str, ip4: str | None, ip6: str | None) -> None:
        self.namespace = namespace
        self.port = port  # its veth end in the switch
        self.ip4, self.ip6 = ip4, ip6
        self.path = Path("/run/netns") / namespace

    @classmethod
    def at(cls, path: Path) -> Self:
        """A namespace by its name alone."""
        return cls(path.name, "", None, None)

    @contextlib.contextmanager
    def fd(self) -> Iterator[int]:
        handle = os.open(self.path, os.O_RDONLY)
        try:
            yield handle
        finally:
            os.close(handle)

    @contextlib.contextmanager
    def inside(self) -> Iterator[None]:
        """This thread is in the namespace; sockets made here stay there."""
        home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        try:
            with self.fd() as handle:
                _setns(handle)
            try:
                yield
            finally:
                _setns(home)
        finally:
            os.close(home)

    def socket(
        self, family: int = socket.AF_INET, kind: int = socket.SOCK_STREAM, protocol: int = 0
    ) -> socket.socket:
        with self.inside():
            made = socket.socket(family, kind, protocol)
        made.settimeout(DEADLINE_S)
        return made

    def listen(self, host: str, port: int = 0, *, dual: bool = False) -> socket.socket:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = self.socket(family)
        _prepare_listener(listener, host, port, dual=dual)
        return listener

    def dial(
        self, target: Address, *, family: int | None = None, protocol: int = 0
    ) -> socket.socket:
        """A connected socket; of the target's family unless another one is wanted."""
        of_target = socket.AF_INET6 if ":" in target[0] else socket.AF_INET
        made = self.socket(of_target if family is None else family, protocol=protocol)
        try:
            made.connect(target)
        except OSError:
            made.close()
            raise
        return made

    def delete(self) -> None:
        subprocess.run(["ip", "netns", "del", self.namespace], capture_output=True, check=False)


def _setns(handle: int) -> None:
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(handle, 0x40000000) != 0:
        raise OSError(ctypes.get_errno(), "setns")


def _prepare_listener(sock: socket.socket, host: str, port: int, *, dual: bool) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(not dual))
    sock.bind((host, port))
    sock.listen(1024)


class Network:
    """A switch (a bridge in a namespace of its own) and the pods on it; nothing on the host."""

    def __init__(self, prefix: str = "tk") -> None:
        self._prefix = prefix
        self.hub_namespace = _unique(prefix, "hub")
        self._pods: list[Pod] = []

    def __enter__(self) -> Self:
        need_root()
        run("ip", "netns", "add", self.hub_namespace)
        try:
            self.hub("link", "add", "br0", "type", "bridge", "forward_delay", "0")
            self.hub("link", "set", "br0", "up")
        except RuntimeError:
            self._clean()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._clean()

    def _clean(self) -> None:
        for name in [*(pod.namespace for pod in self._pods), self.hub_namespace]:
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)

    def hub(self, *command: str) -> str:
        return run("ip", "-n", self.hub_namespace, *command)

    def pod(self, name: str, ip4: str | None = None, ip6: str | None = None) -> Pod:
        namespace = _unique(self._prefix, name)
        port = f"p{next(_numbers)}"
        pod = Pod(namespace, port, ip4, ip6)
        self._pods.append(pod)
        run("ip", "netns", "add", namespace)
        self.hub("link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", namespace)
        self.hub("link", "set", port, "master", "br0", "up")
        run("ip", "-n", namespace, "link", "set", "lo", "up")
        run("ip", "-n", namespace, "link", "set", "eth0", "up")
        if ip4:
            run("ip", "-n", namespace, "addr", "add", f"{ip4}/24", "dev", "eth0")
            run("ip", "-n", namespace, "route", "add", "default", "dev", "eth0")
        if ip6:
            run("ip", "-n", namespace, "addr", "add", f"{ip6}/64", "dev", "eth0", "nodad")
            run("ip", "-n", namespace, "-6", "route", "add", "default", "dev", "eth0")
        return pod

    def has_port(self, pod: Pod) -> bool:
        """False once the kernel has freed the pod's namespace, its veth included."""
        return f" {pod.port}@" in self.hub("-o", "link", "show")


class Process:
    """A child process that opens sockets in namespaces and hands them over."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._child = subprocess.Popen(
                [sys.executable, "-m", "tests.support.kernel.netns", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                cwd=Path(__file__).parents[3],
            )
        self._control = ours
        self._control.settimeout(DEADLINE_S)

    @property
    def pid(self) -> int:
        return self._child.pid

    def _ask(self, **command: Any) -> socket.socket | None:
        self._control.send(json.dumps(command).encode())
        data, fds, _, _ = socket.recv_fds(self._control, _REPLY_BYTES_MAX, 1)
        self._control.recv(_REPLY_BYTES_MAX)  # the child has closed its copy: ours is the only one
        reply = json.loads(data)
        if reply["errno"]:
            raise OSError(reply["errno"], os.strerror(reply["errno"]))
        if not fds:
            return None
        sock = socket.socket(fileno=fds[0])
        sock.settimeout(DEADLINE_S)
        return sock

    def join_cgroup(self, directory: Path) -> None:
        self._ask(op="cgroup", path=str(directory))

    def enter(self, pod: Pod) -> None:
        """Live in that namespace, and keep it alive."""
        self._ask(op="enter", path=str(pod.path))

    def listen(self, pod: Pod, host: str, port: int = 0, *, dual: bool = True) -> socket.socket:
        made = self._ask(op="listen", netns=str(pod.path), host=host, port=port, dual=dual)
        assert made is not None
        return made

    def hold(self, pod: Pod, host: str, port: int) -> bool:
        """Listen and keep the socket to itself, as a ztunnel does that hands nothing over."""
        return self._ask(op="hold", netns=str(pod.path), host=host, port=port, dual=True) is None

    def dial(
        self,
        pod: Pod,
        target: Address,
        *,
        option: tuple[int, int, bytes] | None = None,
        mark: int = 0,
        source: str = "",
        ours: bool = False,
    ) -> socket.socket:
        """Connect from inside the pod; before that set one option, or bind to any `source`.

        `ours`: as our ztunnel dials apps.
        """
        made = self._ask(
            op="dial",
            ours=ours,
            netns=str(pod.path),
            target=list(target),
            option=[option[0], option[1], option[2].hex()] if option else None,
            mark=mark,
            source=source,
        )
        assert made is not None
        return made

    def churn(self, pod: Pod, target: Address, times: int) -> None:
        """Connect as often, one after the other, and be the first to close; OSError: one failed."""
        self._ask(op="churn", netns=str(pod.path), target=list(target), times=times)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._control.close()
        self._child.kill()
        self._child.wait(DEADLINE_S)


def _serve(control: socket.socket) -> None:
    """The child's life: one command, one answer, until the test closes its end."""
    while data := control.recv(_REPLY_BYTES_MAX):
        command = json.loads(data)
        made: socket.socket | None = None
        try:
            made = _obey(command)
            answer = {"errno": 0}
        except OSError as exc:
            answer = {"errno": exc.errno or 5}
        socket.send_fds(control, [json.dumps(answer).encode()], [made.fileno()] if made else [])
        if made:
            made.close()
        control.send(b"closed")


def _obey(command: dict[str, Any]) -> socket.socket | None:
    if command["op"] == "cgroup":
        (Path(command["path"]) / "cgroup.procs").write_text("0")
        return None
    if command["op"] == "enter":
        with Pod.at(Path(command["path"])).fd() as handle:
            _setns(handle)
        return None
    # Only for the moment: a process that stayed would keep the namespace alive.
    with Pod.at(Path(command["netns"])).inside():
        if command["op"] == "churn":
            for _ in range(command["times"]):
                _dial_as_ours(tuple(command["target"])).close()
            return None
        return _open_socket(command)


def _dial_as_ours(target: Address) -> socket.socket:
    for left in reversed(range(4)):
        sock = socket.socket(socket.AF_INET6 if ":" in target[0] else socket.AF_INET)
        sock.settimeout(DEADLINE_S)
        _be_ours(sock)
        try:
            sock.connect(target)
        except OSError as exc:
            sock.close()
            if exc.errno != errno.EADDRNOTAVAIL or not left:
                raise
        else:
            break
    return sock


def _be_ours(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_FREEBIND, 1)


def _open_socket(command: dict[str, Any]) -> socket.socket | None:
    host = command["target"][0] if command["op"] == "dial" else command["host"]
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        if command["op"] in ("listen", "hold"):
            _prepare_listener(sock, host, command["port"], dual=command["dual"])
            if command["op"] == "listen":
                return sock
            _held.append(sock)
            return None
        sock.settimeout(DEADLINE_S)
        if command["mark"]:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, command["mark"])
        if command["ours"]:
            _be_ours(sock)
        if command["option"]:
            level, name, value = command["option"]
            sock.setsockopt(level, name, bytes.fromhex(value))
        if command["source"]:
            sock.setsockopt(socket.SOL_IP, _IP_TRANSPARENT, 1)
            sock.bind((command["source"], 0))
        sock.connect(tuple(command["target"]))
    except OSError:
        sock.close()
        raise
    return sock


if __name__ == "__main__":
    with socket.socket(fileno=int(sys.argv[1])) as channel:
        _serve(channel)
