"""One caller of the control plane against the others: a real process, real sockets, small counts.

Each test lets a caller do what would once stop the others, and asks meanwhile for what a node
needs: a certificate and the first state of a stream. Memory may grow by half and by the attack's
own buffers, which are stated in docs/bounds.md.
"""

from __future__ import annotations

import asyncio
import os
import ssl
import struct
import subprocess
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

import grpc
import psutil
import pytest
from hpack import Encoder

from control.server.callers.budget import CONNECTIONS, MIB, RECEIVING, SILENT, STREAMS, UNADMITTED
from control.server.front.meter import PREFACE, REQUEST_BYTES_MAX
from control.wire import discovery_pb2, node_pb2
from control.wire.types import (
    ADDRESS_TYPE,
    CREATE_CERTIFICATE_METHOD,
    DELTA_METHOD,
    REPORT_METHOD,
)
from tests.support.control_bench import (
    HOG,
    PODS,
    Bench,
    csr_request,
    manifests,
    run,
)
from tests.support.processes.control import running_control

pytestmark = pytest.mark.alone

# --- raw HTTP/2


def frame(kind: int, stream: int, payload: bytes = b"", flags: int = 0) -> bytes:
    head = struct.pack(">BHBBI", len(payload) >> 16, len(payload) & 0xFFFF, kind, flags, stream)
    return head + payload


class Raw:
    """One HTTP/2 connection that obeys nothing. What comes back is thrown away."""

    def __init__(self, writer: asyncio.StreamWriter, reader: asyncio.StreamReader) -> None:
        self.writer, self.reader = writer, reader
        self._encoder = Encoder()
        self.write(PREFACE + frame(4, 0))

    def write(self, data: bytes) -> None:
        self.writer.write(data)

    def call(self, stream: int, path: str, token: str = "", **headers: str) -> None:
        fields = [
            (":method", "POST"),
            (":scheme", "https"),
            (":authority", "x"),
            (":path", path),
            ("content-type", "application/grpc"),
            ("te", "trailers"),
            *headers.items(),
        ]
        if token:
            fields.append(("authorization", f"Bearer {token}"))
        self.write(frame(1, stream, self._encoder.encode(fields), 0x4))

    def message(self, stream: int, length: int, sent: int) -> None:
        """A message that announces `length` and sends only a part of it."""
        payload = struct.pack(">BI", 0, length) + bytes(sent)
        for at in range(0, len(payload), 16384):
            self.write(frame(0, stream, payload[at : at + 16384]))

    async def ended(self) -> bool:
        """True if the other side closes within a moment."""
        try:
            async with asyncio.timeout(5):
                while await self.reader.read(65536):
                    pass
        except TimeoutError:
            return False
        except OSError:
            pass
        return True


@asynccontextmanager
async def raw(bench: Bench) -> AsyncIterator[Raw]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    reader, writer = await asyncio.open_connection("127.0.0.1", bench.control.port, ssl=context)
    try:
        yield Raw(writer, reader)
    finally:
        writer.transport.abort()


# --- callers without a token


@pytest.mark.parametrize("method", [CREATE_CERTIFICATE_METHOD, DELTA_METHOD, "/x.y/z"])
@pytest.mark.parametrize("token", ["", "rubbish"])
def test_unfinished_calls_without_a_token_take_no_memory(
    tmp_path: Path, method: str, token: str
) -> None:
    async def test(bench: Bench) -> None:
        async with AsyncExitStack() as stack:
            for _ in range(10):
                client = await stack.enter_async_context(raw(bench))
                for stream in range(1, 33, 2):
                    client.call(stream, method, token)
                    client.message(stream, 16 * MIB, 60_000)
            await bench.check(buffers=10 * 0.1)
        await bench.check()

    run(tmp_path, test)


def test_silent_connections_keep_nobody_out(tmp_path: Path) -> None:
    async def test(bench: Bench) -> None:
        process = psutil.Process(bench.control.process.pid)
        async with AsyncExitStack() as stack:
            writers = []
            async with asyncio.timeout(30):
                while (await bench.refused()).get("displaced", 0) < SILENT.each:
                    for _ in range(SILENT.each):
                        _, writer = await asyncio.open_connection("127.0.0.1", bench.control.port)
                        writers.append(writer)
            for _ in range(20):
                await stack.enter_async_context(raw(bench))
            await bench.check(buffers=UNADMITTED.each * 0.02)
            assert process.num_fds() < UNADMITTED.each + SILENT.each
            for writer in writers:
                writer.close()

    run(tmp_path, test)


def test_an_older_tls_and_a_compressed_message_are_refused(tmp_path: Path) -> None:
    async def test(bench: Bench) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        with pytest.raises(ssl.SSLError):
            await asyncio.open_connection("127.0.0.1", bench.control.port, ssl=context)
        async with raw(bench) as client:
            client.call(1, CREATE_CERTIFICATE_METHOD, bench.control.token(HOG))
            client.write(frame(0, 1, struct.pack(">BI", 1, 1000) + bytes(1000)))
            assert await client.ended()
        assert {"tls_version", "compressed"} <= (await bench.refused()).keys()
        await bench.check()

    run(tmp_path, test)


# --- one node's token


def test_large_messages_of_one_node_come_one_at_a_time(tmp_path: Path) -> None:
    async def test(bench: Bench) -> None:
        token = bench.control.token(HOG)
        async with AsyncExitStack() as stack:
            for _ in range(CONNECTIONS.each):
                client = await stack.enter_async_context(raw(bench))
                client.call(1, CREATE_CERTIFICATE_METHOD, token)
                client.message(1, REQUEST_BYTES_MAX, REQUEST_BYTES_MAX - 1)
            await bench.check(buffers=RECEIVING.each * 2 * REQUEST_BYTES_MAX / MIB + 4)
            rows = await bench.control.admin("/callers")
            assert [row["receiving"] for row in rows if row["name"] == HOG] == [1]

    run(tmp_path, test)


def test_streams_and_types_of_one_node_are_few(tmp_path: Path) -> None:
    async def test(bench: Bench) -> None:
        async with bench.channel() as channel:
            calls = []
            for _ in range(3 * STREAMS.each):
                call = channel.stream_stream(DELTA_METHOD)(metadata=bench.token())
                first = discovery_pb2.DeltaDiscoveryRequest(type_url=ADDRESS_TYPE)
                with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):  # refused already
                    await call.write(first.SerializeToString())
                calls.append(call)
            await bench.check(buffers=STREAMS.each)
            for call in calls:
                call.cancel()
        async with bench.channel() as channel:
            call = channel.stream_stream(DELTA_METHOD)(metadata=bench.token())
            for number in range(50):
                versions = {f"{number}-{at}": "v" for at in range(5000)}
                request = discovery_pb2.DeltaDiscoveryRequest(
                    type_url=f"x.{number}", initial_resource_versions=versions
                )
                try:
                    await call.write(request.SerializeToString())
                except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
                    break
            call.cancel()
        refused = await bench.refused()
        assert refused["too_many_types"] == 1
        assert refused["streams_max"] > STREAMS.each
        await bench.check(buffers=4)

    run(tmp_path, test)


async def flood(
    bench: Bench, method: str, messages: list[bytes], at_once: int, stop: asyncio.Event
) -> None:
    """Call without a pause."""

    async def one(channel: grpc.aio.Channel, number: int) -> None:
        while not stop.is_set():
            number += 1
            try:
                await channel.unary_unary(method)(
                    messages[number % len(messages)], metadata=token, timeout=10
                )
            except grpc.aio.AioRpcError:
                await asyncio.sleep(0.001)

    token = bench.token()
    async with AsyncExitStack() as stack, asyncio.TaskGroup() as tasks:
        channels = [await stack.enter_async_context(bench.channel()) for _ in range(3)]
        for number in range(at_once):
            tasks.create_task(one(channels[number % 3], number))


@pytest.mark.parametrize("what", ["certificates", "reports"])
def test_calls_of_one_node_delay_no_other(tmp_path: Path, what: str) -> None:
    async def test(bench: Bench) -> None:
        pods = await bench.control.admin("/pods")
        mine = [each["uid"] for each in pods if each["node"] == HOG]
        if what == "certificates":
            method = CREATE_CERTIFICATE_METHOD
            messages = [csr_request("spiffe://cluster.local/ns/demo/sa/sa0")]
        else:
            method = REPORT_METHOD
            messages = [
                node_pb2.ReportRequest(node=HOG, captured_uids=uids).SerializeToString()
                for uids in (mine, [])
            ]
        stop = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(flood(bench, method, messages, 100, stop))
            await asyncio.sleep(1)
            try:
                await bench.check(buffers=8)
            finally:
                stop.set()
        await bench.check(buffers=4)

    run(tmp_path, test)


# --- and the disk

ENROLLED = """apiVersion: v1
kind: Namespace
metadata: {name: demo, labels: {istio.io/dataplane-mode: ambient}}
---
"""


def fill(path: Path) -> None:
    """Write until there is no room left."""
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            pass


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a file system")
def test_a_full_disk_keeps_nothing_from_starting_and_no_pod_out(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)], check=True)

    async def report(bench: Bench, uids: list[str]) -> None:
        async with bench.channel() as channel:
            request = node_pb2.ReportRequest(node=HOG, captured_uids=uids)
            await channel.unary_unary(REPORT_METHOD)(
                request.SerializeToString(), metadata=bench.token(), timeout=10
            )

    async def captured(bench: Bench) -> int:
        rows = await bench.control.admin("/workloads")
        return sum(row["protocol"] == "HBONE" for row in rows)

    async def first(bench: Bench) -> None:
        pods = await bench.control.admin("/pods")
        mine = sorted(each["uid"] for each in pods if each["node"] == HOG)
        await report(bench, mine[:3])
        fill(disk / "fill")
        await report(bench, mine[:5])
        assert await captured(bench) == 5
        await bench.check()
        await bench.control.logged("capture.not_saved")

    async def second(bench: Bench) -> None:
        """Three were saved, and the disk had no room for the rest: every enrolled pod may be
        captured, until its node says which are."""
        assert await captured(bench) == PODS
        pods = await bench.control.admin("/pods")
        mine = sorted(each["uid"] for each in pods if each["node"] == HOG)
        await report(bench, mine[:5])
        assert await captured(bench) == PODS // 2 + 5
        await bench.check()

    async def whole() -> None:
        (disk / "manifests").mkdir()
        (disk / "manifests/pods.yaml").write_text(ENROLLED + manifests())
        for test in (first, second, second):
            async with running_control(disk) as control:
                bench = Bench(control)
                await bench.honest_s()
                bench.idle = bench.memory()
                await test(bench)

    try:
        asyncio.run(whole())
    finally:
        subprocess.run(["umount", str(disk)], check=True)
