"""Memory of a whole ztunnel (supervisor and one worker): at its start, and with many workloads.

    node_memory.py [--workloads N] [--settled]

The real `tulle-ztunnel` against a scripted control plane, which sends each step as one response.
RSS by /proc/<pid>/smaps_rollup; `--settled` waits until both have settled for the second time.
"""

from __future__ import annotations

import argparse
import asyncio
import pathlib
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))

import grpc
import grpc.aio
from google.protobuf.any_pb2 import Any as AnyMessage

from control.wire import discovery_pb2 as pb
from control.wire.types import ADDRESS_TYPE, AUTHORIZATION_TYPE, DELTA_METHOD
from tests.bench.state_push import rss_kib, scenarios
from tests.support.certificates import make_authority
from ztunnel.mesh.entries import Entry, Op

DEADLINE_S = 60.0
SETTLED_S = 22.0  # control.kit.memory.SETTLE_AT_S, and a little


class ControlPlane:
    """One client, which gets what `push` is given and has its answers counted."""

    def __init__(self) -> None:
        self._outgoing: asyncio.Queue[bytes] = asyncio.Queue()
        self._acknowledged = asyncio.Condition()
        self._nonces = 0
        self._answers = 0
        self.port = 0

    async def stream(
        self, requests: AsyncIterator[bytes], _context: object
    ) -> AsyncIterator[bytes]:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._listen(requests))
            while True:
                yield await self._outgoing.get()

    async def _listen(self, requests: AsyncIterator[bytes]) -> None:
        async for each in requests:
            request = pb.DeltaDiscoveryRequest.FromString(each)
            if request.error_detail.message:
                raise SystemExit(f"refused: {request.error_detail.message[:200]}")
            if request.response_nonce:
                async with self._acknowledged:
                    self._answers += 1
                    self._acknowledged.notify_all()

    async def push(self, type_url: str, entries: Iterable[Entry]) -> None:
        """Send a response and wait until it is acknowledged."""
        self._nonces += 1
        response = pb.DeltaDiscoveryResponse(type_url=type_url, nonce=str(self._nonces))
        for entry in entries:
            if entry.op is Op.ADDRESS:
                message = AnyMessage(type_url=type_url, value=entry.body)
                version = f"{hash(entry.body) & (1 << 64) - 1:016x}"
                response.resources.add(name=entry.name, version=version, resource=message)
            elif entry.op is Op.REMOVE_ADDRESS:
                response.removed_resources.append(entry.name)
        await self._outgoing.put(response.SerializeToString())
        async with asyncio.timeout(DEADLINE_S), self._acknowledged:
            await self._acknowledged.wait_for(lambda: self._answers == self._nonces)


@asynccontextmanager
async def serving(plane: ControlPlane, folder: pathlib.Path) -> AsyncIterator[None]:
    authority = make_authority()
    made = authority.issue(hosts=["localhost"])
    (folder / "root.pem").write_bytes(authority.pem)
    handlers = {
        DELTA_METHOD.rpartition("/")[2]: grpc.stream_stream_rpc_method_handler(plane.stream)
    }
    server = grpc.aio.server()
    service = DELTA_METHOD.split("/")[1]
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
    credentials = grpc.ssl_server_credentials([(made.key_pem, made.chain_pem[0])])
    plane.port = server.add_secure_port("127.0.0.1:0", credentials)
    await server.start()
    try:
        yield
    finally:
        await server.stop(0)


# -- measurements ------------------------------------------------------------------------------


def children(pid: int) -> list[int]:
    text = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(word) for word in text.split()]


def show(name: str, pids: list[int]) -> None:
    sizes = [rss_kib(pid) for pid in pids]
    sys.stdout.write(f"{name:>20}" + "".join(f"{size:11} KiB" for size in sizes) + "\n")
    sys.stdout.flush()


async def run(count: int, settled: bool) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        plane = ControlPlane()
        async with serving(plane, folder):
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "ztunnel.main", "--node", "n1", "--log-level", "warning"),
                *("--control", f"127.0.0.1:{plane.port}", "--control-name", "localhost"),
                *("--control-root", str(folder / "root.pem"), "--run-dir", name, "--workers", "1"),
                *("--admin", "off", "--metrics", "off", "--readiness", "off"),
                cwd=sys.path[0],
            )
            try:
                await measure(process.pid, plane, count, settled)
            finally:
                process.send_signal(signal.SIGINT)
                async with asyncio.timeout(DEADLINE_S):
                    await process.wait()


async def measure(pid: int, plane: ControlPlane, count: int, settled: bool) -> None:
    await plane.push(AUTHORIZATION_TYPE, [])
    await plane.push(ADDRESS_TYPE, [])
    pids = [pid, *children(pid)]
    sys.stdout.write(f"{'':>20}     supervisor         worker\n")
    await asyncio.sleep(2.0)
    show("start", pids)
    if settled:
        await asyncio.sleep(SETTLED_S)
        show("settled", pids)
    for name, entries in scenarios(count):
        await plane.push(ADDRESS_TYPE, entries)
        await asyncio.sleep(2.0)
        show(name, pids)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workloads", type=int, default=10_000)
    parser.add_argument("--settled", action="store_true")
    options = parser.parse_args()
    asyncio.run(run(options.workloads, options.settled))


if __name__ == "__main__":
    main()
