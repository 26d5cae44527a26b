"""A connection from its first packet to its end: TLS, deadlines, holds, and both ways of bytes."""

from __future__ import annotations

import asyncio
import ssl
import struct
import threading
from pathlib import Path
from typing import cast

import pytest

from control.server.callers.budget import node_tenant
from control.server.front import relay
from control.server.front.meter import PREFACE, RST_STREAM
from control.server.front.relay import Relay, Shared
from tests.support.control_front import CALL, Bench, client_context, connect, frame, run

LARGE = frame(0, 1, struct.pack(">BI", 0, 1_000_000))


def test_bytes_pass_both_ways_and_ends_meet(tmp_path: Path) -> None:
    async def test(bench: Bench) -> None:
        reader, writer = await connect(bench)
        content = PREFACE + CALL + frame(6, 0, bytes(8)) * 20_000
        writer.write(content)
        await bench.until(lambda: len(bench.received) == len(content))
        assert bench.received == content
        answer = frame(6, 0, bytes(8)) * 50_000
        bench.answers[0].write(answer)
        assert await reader.readexactly(len(answer)) == answer
        assert bench.arrivals.connections.held(node_tenant("n1")) == 1
        bench.answers[0].close()
        assert await reader.read() == b""
        await bench.until(lambda: not bench.open_arrivals())
        assert bench.refused() == set()
        assert bench.arrivals.connections.total == 0
        writer.close()

    run(tmp_path, test)


def test_an_older_tls_is_refused(tmp_path: Path) -> None:
    async def test(bench: Bench) -> None:
        with pytest.raises(ssl.SSLError):
            await connect(bench, client_context(ssl.TLSVersion.TLSv1_2))
        await bench.until(bench.refused)
        assert bench.refused() == {"tls_version"}

    run(tmp_path, test)


@pytest.mark.parametrize(
    ("first", "reason"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", "tls"),
        (b"\x16\x03\x01\xff\xff" + bytes(100), "handshake_timeout"),
        (b"\x16\x03\x01\x40\x00\x01\x01\xff\xff" + bytes(9), "hello_too_large"),
        (b"", "handshake_timeout"),
    ],
)
def test_what_is_no_handshake_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: bytes, reason: str
) -> None:
    monkeypatch.setattr(relay, "HANDSHAKE_S", 0.1)

    async def test(bench: Bench) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", bench.port)
        writer.write(first)
        async with asyncio.timeout(5):
            await reader.read()
        allowed = {reason} if reason == "hello_too_large" else {reason, "tls"}
        assert bench.refused() <= allowed
        assert bench.arrivals.unadmitted.total == 0
        writer.close()

    run(tmp_path, test)


def test_a_client_that_never_calls_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "ADMISSION_S", 0.1)

    async def test(bench: Bench) -> None:
        bench.admit_with = ""
        for first in (b"", PREFACE, PREFACE + CALL):
            reader, writer = await connect(bench)
            writer.write(first)
            async with asyncio.timeout(5):
                await reader.read()
            writer.close()
        assert bench.refused() == {"admission_timeout"}

    run(tmp_path, test)


def test_without_a_token_only_so_much_is_read(tmp_path: Path) -> None:
    async def test(bench: Bench) -> None:
        bench.admit_with = ""
        _, writer = await connect(bench)
        content = PREFACE + CALL + frame(6, 0, bytes(8)) * 40_000
        writer.write(content)
        least = relay.UNADMITTED_BYTES_MAX - 2 * relay.READ_BYTES  # TLS has its own part
        await bench.until(lambda: len(bench.received) > least)
        await asyncio.sleep(0.05)
        bound = relay.UNADMITTED_BYTES_MAX + 2 * relay.READ_BYTES
        assert len(bench.received) <= bound
        bench.arrivals.admit(bench.open_arrivals()[0], node_tenant("n1"))
        await bench.until(lambda: len(bench.received) == len(content))
        writer.close()

    run(tmp_path, test)


def test_one_large_message_of_a_node_at_a_time(tmp_path: Path) -> None:
    async def test(bench: Bench) -> None:
        writers = []
        for _ in range(2):
            _, writer = await connect(bench)
            writer.write(PREFACE + CALL)
            writers.append(writer)
        await bench.until(lambda: len(bench.answers) == 2)
        writers[0].write(LARGE)
        await bench.until(lambda: bench.arrivals.receiving.shares.total == 1)
        before = len(bench.received)
        writers[1].write(LARGE)
        writers[1].write(frame(6, 0, bytes(8)) * 10_000)
        await asyncio.sleep(0.1)
        assert len(bench.received) - before <= relay.READ_BYTES
        writers[0].close()
        await bench.until(lambda: len(bench.received) - before > 100_000)
        writers[1].close()
        await bench.until(lambda: bench.arrivals.receiving.shares.total == 0)

    run(tmp_path, test)


def test_a_share_is_given_back_when_grpc_ends_the_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that is held, and one that is waited for; neither connection is closed for it."""
    monkeypatch.setattr(relay, "LARGE_S", 0.2)

    async def test(bench: Bench) -> None:
        writers = []
        for _ in range(2):
            _, writer = await connect(bench)
            writer.write(PREFACE + CALL)
            writers.append(writer)
            await bench.until(lambda: len(bench.answers) == len(writers))
        writers[0].write(LARGE)
        await bench.until(lambda: bench.arrivals.receiving.shares.total == 1)
        writers[1].write(LARGE)
        await asyncio.sleep(0.05)
        for inner in (bench.answers[1], bench.answers[0]):  # the one that waits goes first
            inner.write(frame(RST_STREAM, 1, bytes(4)))
        await bench.until(lambda: bench.arrivals.receiving.shares.total == 0)
        before = len(bench.received)
        for writer in writers:
            writer.write(frame(6, 0, bytes(8)))
        await bench.until(lambda: len(bench.received) - before >= 2 * 17)
        await asyncio.sleep(0.3)
        assert bench.refused() == set()
        for writer in writers:
            writer.close()

    run(tmp_path, test)


def test_a_large_message_has_to_come_to_an_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay, "LARGE_S", 0.1)

    async def test(bench: Bench) -> None:
        reader, writer = await connect(bench)
        writer.write(PREFACE + CALL + LARGE)
        async with asyncio.timeout(5):
            await reader.read()
        assert bench.refused() == {"slow_message"}
        assert bench.arrivals.receiving.shares.total == 0
        writer.close()

    run(tmp_path, test)


def test_a_client_that_takes_nothing_goes_and_little_is_kept_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay, "STALLED_S", 0.3)
    monkeypatch.setattr(relay, "CLOSING_S", 0.1)

    async def test(bench: Bench) -> None:
        reader, writer = await connect(bench)
        writer.transport.pause_reading()  # type: ignore[attr-defined]  # a TLS transport has it
        writer.write(PREFACE + CALL)
        await bench.until(lambda: bench.answers)
        inner = bench.answers[0]
        for _ in range(2000):
            inner.write(frame(6, 0, bytes(16_000)))
        await asyncio.sleep(0.1)
        assert inner.transport.get_write_buffer_size() > 0, "we stopped taking"
        await bench.until(lambda: not bench.open_arrivals())
        assert bench.refused() == {"stalled"}
        writer.close()
        del reader

    run(tmp_path, test)


def test_a_client_that_takes_nothing_is_not_read(tmp_path: Path) -> None:
    """TLS answers by itself, and so does gRPC."""

    async def test(bench: Bench) -> None:
        _, writer = await connect(bench)
        writer.write(PREFACE + CALL)
        await bench.until(lambda: len(bench.received) == len(PREFACE + CALL))
        subject = cast(Relay, bench.open_arrivals()[0].close.__self__)  # type: ignore[attr-defined]
        subject.pause_writing()
        before = len(bench.received)
        content = frame(6, 0, bytes(8)) * 10_000
        writer.write(content)
        await asyncio.sleep(0.05)
        assert len(bench.received) == before
        subject.resume_writing()
        await bench.until(lambda: len(bench.received) - before == len(content))
        writer.close()

    run(tmp_path, test)


def test_calls_over_the_pace_of_a_node_wait(tmp_path: Path) -> None:
    async def test(bench: Bench) -> None:
        _, writer = await connect(bench)
        writer.write(PREFACE + CALL)
        await bench.until(lambda: bench.answers)
        pace = bench.arrivals.opened.pace
        bench.arrivals.opened.spend(node_tenant("n1"), pace.burst + pace.per_s, 0.0)
        bench.arrivals.opened.spend(
            node_tenant("n1"), pace.burst + pace.per_s / 2, bench.clock.monotonic_s()
        )
        before = len(bench.received)
        content = frame(6, 0, bytes(8)) * 10_000
        writer.write(content)
        await asyncio.sleep(0.1)
        assert len(bench.received) - before <= 2 * relay.READ_BYTES
        await bench.until(lambda: len(bench.received) - before >= len(content))
        writer.close()

    run(tmp_path, test)


def test_silent_connections_hold_no_thread_and_no_grpc_connection(tmp_path: Path) -> None:
    async def test(bench: Bench) -> None:
        threads = threading.active_count()
        opened = [await asyncio.open_connection("127.0.0.1", bench.port) for _ in range(50)]
        assert bench.answers == []
        assert threading.active_count() == threads
        for _, writer in opened:
            writer.close()
        await bench.until(lambda: bench.arrivals.unadmitted.total == 0)

    run(tmp_path, test)


class Written(asyncio.Transport):
    def __init__(self) -> None:
        super().__init__()
        self.pieces: list[bytes] = []

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.pieces.append(bytes(data))

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def resume_reading(self) -> None:
        pass


def test_what_came_before_grpc_was_connected_is_one_write() -> None:
    """gRPC may end the connection after the first: each more would be a line of asyncio's."""
    subject, grpc = Relay(cast(Shared, None)), Written()
    subject._transport = Written()
    subject._backlog = [b"one", b"two", b"three"]
    subject.connected(grpc)
    assert grpc.pieces == [b"onetwothree"]


def test_a_wait_for_its_turn_costs_a_client_no_patience(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay, "HANDSHAKE_S", 0.2)

    async def test(bench: Bench) -> None:
        queue: list[Relay] = []
        bench.front._shared.queue = queue.append
        async with asyncio.TaskGroup() as tasks:
            connecting = tasks.create_task(connect(bench))
            await bench.until(lambda: queue)
            assert bench.arrivals.silent.total == 0
            await asyncio.sleep(0.3)  # longer than it has
            bench.front._shared.queue = bench.front._queue
            queue[0].step()
        _, writer = connecting.result()
        writer.write(PREFACE + CALL)
        await bench.until(lambda: bench.arrivals.connections.total)
        assert bench.refused() == set()
        writer.close()

    run(tmp_path, test)


def test_without_a_token_only_so_many_calls_are_passed_on(tmp_path: Path) -> None:
    async def test(bench: Bench) -> None:
        bench.admit_with = ""
        _, writer = await connect(bench)
        calls = b"".join(frame(1, 2 * number + 1) for number in range(100))
        writer.write(PREFACE + calls[:90])
        await bench.until(lambda: len(bench.received) == len(PREFACE) + 90)
        writer.write(calls[90:])
        await asyncio.sleep(0.05)
        assert len(bench.received) == len(PREFACE) + 90
        bench.arrivals.admit(bench.open_arrivals()[0], node_tenant("n1"))
        await bench.until(lambda: len(bench.received) == len(PREFACE) + len(calls))
        writer.close()

    run(tmp_path, test)


def test_the_next_large_message_waits_until_the_last_one_was_taken(tmp_path: Path) -> None:
    """All of 500 nodes would be in gRPC's memory at once."""

    async def test(bench: Bench) -> None:
        _, writer = await connect(bench)
        writer.write(PREFACE + CALL)
        await bench.until(lambda: bench.arrivals.connections.total)
        (arrival,) = bench.open_arrivals()
        receiving = bench.arrivals.receiving.shares
        message = struct.pack(">BI", 0, 100_000) + bytes(100_000)
        for _ in range(2):
            for at in range(0, len(message), 16_000):
                piece = message[at : at + 16_000]
                writer.write(struct.pack(">BHBBI", 0, len(piece), 0, 0, 1) + piece)
            await bench.until(lambda: receiving.total and not arrival.is_sending)
            arrival.taken()
            assert receiving.total == 0
        assert bench.refused() == set()
        writer.close()

    run(tmp_path, test)


def test_a_message_that_nobody_takes_holds_its_turn_for_a_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay, "TAKEN_S", 0.05)

    async def test(bench: Bench) -> None:
        _, writer = await connect(bench)
        message = struct.pack(">BI", 0, 70_000) + bytes(70_000)
        writer.write(PREFACE + CALL)
        for at in range(0, len(message), 16_000):
            piece = message[at : at + 16_000]
            writer.write(struct.pack(">BHBBI", 0, len(piece), 0, 0, 1) + piece)
        receiving = bench.arrivals.receiving.shares
        await bench.until(lambda: receiving.total == 1)
        await bench.until(lambda: receiving.total == 0)
        assert bench.refused() == set()
        writer.close()

    run(tmp_path, test)
