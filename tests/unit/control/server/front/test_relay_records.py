"""TLS records have a price, and a client whose records carry nothing goes."""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from control.server.callers.budget import RECEIVED, Paces, node_tenant
from control.server.front import relay
from control.server.front.meter import PREFACE
from control.server.front.records import TINY_RECORDS_MAX
from tests.support.certificates import make_authority
from tests.support.control_front import CALL, Bench, connect, frame, run
from tests.support.peers import openssl


def test_records_are_paid_for_beside_what_they_carry(tmp_path: Path) -> None:
    async def test(bench: Bench) -> None:
        paces = bench.arrivals.received = Paces(replace(RECEIVED, per_s=1.0))
        _, writer = await connect(bench)
        writer.write(PREFACE + CALL)
        await bench.until(lambda: bench.answers)
        count = 200
        for _ in range(count):
            writer.write(frame(6, 0, bytes(8)))  # a record each
        owed = count * relay.RECORD_COST
        now_s = bench.clock.monotonic_s
        await bench.until(lambda: paces.debt(node_tenant("n1"), now_s()) > owed)
        writer.close()

    run(tmp_path, test)


@pytest.mark.skipif(not openssl.LIBRARY, reason="libssl of the system is missing")
@pytest.mark.parametrize("admit_with", ["n1", ""])
def test_a_client_that_renews_its_keys_without_end_goes(tmp_path: Path, admit_with: str) -> None:
    """TLS answers key updates by itself: nobody else would see them."""

    def send(port: int) -> None:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as sock:
            sock.setblocking(True)
            material = make_authority().issue("spiffe://cluster.local/ns/a/sa/b")
            client = openssl.OpensslClient(sock.fileno(), material)
            assert client.shake_hands()
            client.write(PREFACE + CALL)
            for _ in range(2 * TINY_RECORDS_MAX):
                client.update_key()
            # A close with answers unread is a reset, which would take the rest along.
            with suppress(OSError):
                while sock.recv(65536):
                    pass
            client.close()

    async def test(bench: Bench) -> None:
        bench.admit_with = admit_with
        thread = asyncio.get_running_loop().run_in_executor(None, send, bench.port)
        await bench.until(bench.refused)
        assert bench.refused() == {"tiny_records"}
        await thread

    run(tmp_path, test)
