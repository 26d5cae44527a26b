"""A node to try the agent on: two namespaces joined by a veth, servers in them, an agent, ztunnels.

Everything has a unique name and goes with the bed, also after a failure: processes, namespaces,
pins, cgroups, files.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from agent import fetch
from agent.datapath.netns import inside
from tests.support.peers.pod_intents import NAME, PodIntents, pod

DEADLINE_S = 15.0
LINE_BYTES_MAX = 1 << 20  # a line of direct.sock has 64 KiB, and is wrapped in another one
APP_PORT = 8080
_numbers = itertools.count(1)
_APP = """
import socket, sys
server = socket.create_server(("::", int(sys.argv[1])), family=socket.AF_INET6, dualstack_ipv6=True)
held = []
print("listening", flush=True)
while True:
    client, _ = server.accept()
    client.send(b"app\\n")
    held.append(client)
    del held[:-16]
"""


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, timeout=DEADLINE_S)


async def eventually(
    probe: Callable[[], bool] | Callable[[], Awaitable[bool]], seen: object = None
) -> None:
    """Wait until another process or the kernel has done something it cannot tell us."""
    try:
        async with asyncio.timeout(DEADLINE_S):
            while True:
                outcome = probe()
                if await outcome if isinstance(outcome, Awaitable) else outcome:
                    return
                await asyncio.sleep(0.02)
    except TimeoutError as exc:
        raise AssertionError(f"never came; last seen: {seen}") from exc


class Process:
    """A child with a log of JSON lines (or anything) on standard output; ended with the bed."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.pid = process.pid
        self.lines: list[dict[str, Any]] = []

    async def said(self, **wanted: Any) -> dict[str, Any]:
        """Wait for a line with these fields, the ones that are there included."""
        async with asyncio.timeout(DEADLINE_S):
            while True:
                for line in self.lines:
                    if wanted.items() <= line.items():
                        return line
                await self._read()

    async def _read(self) -> None:
        assert self._process.stdout is not None
        raw = await self._process.stdout.readline()
        if not raw:
            raise AssertionError(f"process {self.pid} ended; it said {self.lines}")
        self.lines.append(json.loads(raw))

    async def tell(self, **fields: Any) -> None:
        """One JSON line on its standard input."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(fields).encode() + b"\n")
        await self._process.stdin.drain()

    async def heard(self, kind: str, **wanted: Any) -> dict[str, Any]:
        """Take the next line of this kind that the ztunnel got at direct.sock off the list."""
        async with asyncio.timeout(DEADLINE_S):
            while True:
                for line in self.lines:
                    found = line.get("direct", {})
                    if found.get("kind") == kind and wanted.items() <= found.items():
                        self.lines.remove(line)
                        return dict(found)
                await self._read()

    async def line(self) -> bytes:
        assert self._process.stdout is not None
        async with asyncio.timeout(DEADLINE_S):
            return await self._process.stdout.readline()

    async def end(self, number: int) -> int:
        if self._process.returncode is None:
            self._process.send_signal(number)
        return await self.ended()

    async def ended(self) -> int:
        """Wait until it has ended by itself; its exit code. It is killed if it does not."""
        try:
            async with asyncio.timeout(DEADLINE_S):
                return await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
            raise


class Bed:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.tag = f"{os.getpid()}-{next(_numbers)}"
        self.node = f"ta-{self.tag}.internal"  # as a cloud names it
        self.pod_netns = f"ta-{self.tag}-pod"
        self.peer_netns = f"ta-{self.tag}-peer"
        self.control = PodIntents()
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        try:
            self._make_namespaces()
            self.pod_app = await self.app(self.pod_netns)
            await self.app(self.peer_netns)
        except BaseException:
            await self.__aexit__(None, None, None)
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        async with AsyncExitStack() as last:  # each is done, whatever the others end in
            for name in (self.pod_netns, self.peer_netns):
                last.push_async_callback(self._run, "ip", "netns", "del", name)
            last.push_async_callback(self._run, *self.agent_command("--uninstall"))
            await self._stack.aclose()

    async def _run(self, *command: str) -> None:
        await (await self._start(*command)).ended()

    def _make_namespaces(self) -> None:
        ip("netns", "add", self.pod_netns)
        ip("netns", "add", self.peer_netns)
        ip("link", "add", "eth0", "netns", self.pod_netns, "type", "veth",
           "peer", "name", "eth0", "netns", self.peer_netns)  # fmt: skip
        for name, number in ((self.pod_netns, 1), (self.peer_netns, 2)):
            ip("-n", name, "address", "add", f"10.87.0.{number}/24", "dev", "eth0")
            ip("-n", name, "address", "add", f"fd87::{number}/64", "dev", "eth0", "nodad")
            ip("-n", name, "link", "set", "eth0", "up")
            ip("-n", name, "link", "set", "lo", "up")

    async def replace_pod_namespace(self) -> None:
        """A new sandbox with the same name and addresses, as after a quick restart of a pod."""
        await self.pod_app.end(signal.SIGKILL)
        ip("-n", self.peer_netns, "link", "del", "eth0")  # first: it would go with its other end
        ip("netns", "del", self.pod_netns)
        ip("netns", "del", self.peer_netns)
        self._make_namespaces()
        self.pod_app = await self.app(self.pod_netns)
        await self.app(self.peer_netns)

    def has_link(self, netns: str) -> bool:
        found = subprocess.run(
            ["ip", "-n", netns, "link", "show", "eth0"], capture_output=True, check=False
        )
        return found.returncode == 0

    @property
    def run_folder(self) -> Path:
        return self.folder / "run" / self.node

    @property
    def zds(self) -> Path:
        return self.run_folder / "zds.sock"

    def agent_command(self, *more: str) -> list[str]:
        return [
            sys.executable, "-m", "agent.main", "--node", self.node,
            "--control", f"127.0.0.1:{self.control.port}", "--control-name", NAME,
            "--control-root", str(self.folder / "root.pem"),
            "--token", str(self.folder / "token"),
            "--run-dir", str(self.folder / "run"), "--metrics", "", "--drain", "0.3", *more,
        ]  # fmt: skip

    async def _start(self, *command: str) -> Process:
        with (self.folder / "log.txt").open("ab") as errors:
            child = await asyncio.create_subprocess_exec(
                *command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                limit=LINE_BYTES_MAX,
            )
        return Process(child)

    async def start(self, *command: str) -> Process:
        """A process that is killed with the bed if it still lives."""
        process = await self._start(*command)
        self._stack.push_async_callback(process.end, 9)
        return process

    async def app(self, netns: str) -> Process:
        command = ("ip", "netns", "exec", netns, sys.executable, "-c", _APP, str(APP_PORT))
        process = await self.start(*command)
        assert await process.line() == b"listening\n"
        return process

    async def serve_control(self) -> None:
        await self._stack.enter_async_context(self.control.serving(self.folder))

    async def agent(self, *options: str) -> Process:
        (self.run_folder / "agent.sock").unlink(missing_ok=True)
        process = await self.start(*self.agent_command(*options))
        await eventually(self.answers)
        return process

    async def answers(self) -> bool:
        """True once the agent serves its page: its socket file is there a moment earlier."""
        try:
            await self.ask("GET", "/status")
        except fetch.FetchError:
            return False
        return True

    async def ztunnel(self, *options: str) -> Process:
        return await self.start(
            sys.executable,
            "-m",
            "tests.support.peers.zds_client",
            "--socket",
            str(self.zds),
            *options,
        )

    async def direct_ztunnel(self, generation: int = 1) -> Process:
        path = str(self.run_folder / "direct.sock")
        return await self.ztunnel("--direct", path, "--generation", str(generation))

    async def direct(self) -> dict[str, Any]:
        _, status = await self.ask("GET", "/status")
        found = status["direct"]
        assert isinstance(found, dict)
        return found

    async def metrics(self) -> str:
        path = self.run_folder / "agent.sock"
        answer = await asyncio.to_thread(fetch.request, path, "GET", "/metrics")
        return answer.body.decode()

    async def ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        answer = await asyncio.to_thread(
            fetch.request, self.run_folder / "agent.sock", method, path, body
        )
        return answer.status, answer.json()

    async def register(self, uid: str, /, **fields: Any) -> tuple[int, Any]:
        body = {
            "namespace": "shop",
            "name": uid,
            "uid": uid,
            "netns": f"/run/netns/{self.pod_netns}",
        }
        return await self.ask("POST", "/pods", {**body, "timeout_s": 8, **fields})

    async def pod(self, uid: str) -> dict[str, Any]:
        _, status = await self.ask("GET", "/status")
        return next((each for each in status["pods"] if each["uid"] == uid), {})

    async def until(self, uid: str, state: str) -> dict[str, Any]:
        found: dict[str, Any] = {}

        async def reached() -> bool:
            found.clear()
            found.update(await self.pod(uid))
            return found.get("state") == state

        await eventually(reached, found)
        return found

    def connect(self, netns: str, host: str, port: int = APP_PORT) -> socket.socket:
        with open(f"/run/netns/{netns}", "rb") as handle, inside(handle.fileno()):
            sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        sock.settimeout(3)
        sock.connect((host, port))
        return sock

    def hear(self, netns: str, host: str, port: int = APP_PORT) -> str:
        """The first bytes on a new connection from that namespace, from the app or a ztunnel."""
        try:
            with self.connect(netns, host, port) as sock:
                return sock.recv(200).decode().strip()
        except OSError as exc:
            return f"refused: {type(exc).__name__}"

    def out(self, host: str = "10.87.0.2") -> str:
        return self.hear(self.pod_netns, host)

    def into(self, host: str = "10.87.0.1", port: int = APP_PORT) -> str:
        return self.hear(self.peer_netns, host, port)


class Callers:
    """Constant connections out of the pod and into it."""

    PAUSE_S = 0.005  # two hundred calls a second in each direction find a gap of 10 ms

    def __init__(self, bed: Bed) -> None:
        self._bed = bed
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._call, args=(call,)) for call in (bed.out, bed.into)
        ]
        self.heard: Counter[str] = Counter()

    def _call(self, call: Callable[[], str]) -> None:
        while not self._stop.wait(self.PAUSE_S):
            self.heard[call()] += 1

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(DEADLINE_S)


@asynccontextmanager
async def bed_with_pod(
    folder: Path, uid: str, **fields: Any
) -> AsyncIterator[tuple[Bed, Process, Process]]:
    """A bed whose pod is captured: (bed, agent, ztunnel)."""
    async with Bed(folder) as bed:
        await bed.serve_control()
        await bed.control.put(pod(uid, bed.node, enrolled=True))
        agent = await bed.agent()
        ztunnel = await bed.ztunnel()
        await ztunnel.said(snapshot_sent=True)
        assert await bed.register(uid, **fields) == (200, {"uid": uid, "state": "captured"})
        yield bed, agent, ztunnel
