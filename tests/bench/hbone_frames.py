"""DATA frames per second through the tunnel's HTTP/2 layer, next to the h2 library, one thread.

Both sides of both run in this process in turn, so the ratio stays fair on a busy machine.
Usage: python -m tests.bench.hbone_frames [--seconds 0.3] [--rounds 5]
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import h2.config
import h2.connection
import h2.events
import h2.settings

from ztunnel.hbone.events import DataReceived, RequestReceived
from ztunnel.hbone.session import Session
from ztunnel.hbone.settings import CLIENT_SETTINGS, SERVER_SETTINGS, Role

# One TLS read's worth, which the engine hands over at once.
READ_BYTES = 256 * 1024
SECONDS_MAX = 5.0
ROUNDS_MAX = 25


@dataclass(frozen=True, slots=True)
class Rates:
    """Frames per second of one measurement."""

    sent: float
    received: float

    @property
    def both(self) -> float:
        return 1 / (1 / self.sent + 1 / self.received)


def ours(size: int, seconds: float) -> Rates:
    client, server = Session(Role.CLIENT, CLIENT_SETTINGS), Session(Role.SERVER, SERVER_SETTINGS)
    client.start()
    server.start()
    for _ in range(2):
        server.receive(client.take())
        client.receive(server.take())
    stream = client.request("10.0.0.1:80", [])
    (request,) = server.receive(client.take())
    assert isinstance(request, RequestReceived)
    server.respond(request.stream, 200, [], end_stream=False)
    client.receive(server.take())
    batch = max(1, READ_BYTES // (size + 9))
    buffer = bytearray(9 + size)
    frames, send_s, receive_s = 0, 0.0, 0.0
    while send_s + receive_s < seconds:
        begin = time.perf_counter()
        for _ in range(batch):
            if client.room(stream) >= size:
                client.frame_data(stream, buffer, size)
                client.outbound += buffer
        sent = client.take()
        middle = time.perf_counter()
        for event in server.receive(sent):
            if isinstance(event, DataReceived):
                server.consumed(event.stream, len(event.data))
                frames += 1
        updates = server.take()
        end = time.perf_counter()
        client.receive(updates)
        send_s += middle - begin
        receive_s += end - middle
    return Rates(frames / send_s, frames / receive_s)


def _h2_pair() -> tuple[h2.connection.H2Connection, h2.connection.H2Connection]:
    def connection(client_side: bool) -> h2.connection.H2Connection:
        return h2.connection.H2Connection(
            h2.config.H2Configuration(
                client_side=client_side,
                header_encoding=None,
                validate_outbound_headers=False,
                normalize_outbound_headers=False,
                validate_inbound_headers=False,
                normalize_inbound_headers=False,
            )
        )

    client, server = connection(True), connection(False)
    for side in (client, server):
        side.initiate_connection()
        side.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 4 << 20})
        side.increment_flow_control_window((16 << 20) - 65_535)
    for _ in range(3):
        server.receive_data(client.data_to_send())
        client.receive_data(server.data_to_send())
    client.send_headers(1, [(b":method", b"CONNECT"), (b":authority", b"10.0.0.1:80")])
    server.receive_data(client.data_to_send())
    server.send_headers(1, [(b":status", b"200")])
    client.receive_data(server.data_to_send())
    return client, server


def theirs(size: int, seconds: float) -> Rates:
    client, server = _h2_pair()
    batch = max(1, READ_BYTES // (size + 9))
    payload = bytes(size)
    frames, send_s, receive_s = 0, 0.0, 0.0
    while send_s + receive_s < seconds:
        begin = time.perf_counter()
        for _ in range(batch):
            if client.local_flow_control_window(1) >= size:
                client.send_data(1, payload)
        sent = client.data_to_send()
        middle = time.perf_counter()
        for event in server.receive_data(sent):
            if isinstance(event, h2.events.DataReceived):
                server.acknowledge_received_data(event.flow_controlled_length, 1)
                frames += 1
        updates = server.data_to_send()
        end = time.perf_counter()
        if updates:
            client.receive_data(updates)
        send_s += middle - begin
        receive_s += end - middle
    return Rates(frames / send_s, frames / receive_s)


def our_tunnels(seconds: float) -> float:
    """Streams per second, both sides together: CONNECT, 200, both ends closed."""
    client, server = Session(Role.CLIENT, CLIENT_SETTINGS), Session(Role.SERVER, SERVER_SETTINGS)
    client.start()
    server.start()
    for _ in range(2):
        server.receive(client.take())
        client.receive(server.take())
    begin, done = time.perf_counter(), 0
    while time.perf_counter() - begin < seconds:
        stream = client.request("10.0.0.1:80", [("forwarded", f'for="10.0.0.9:{done}"')])
        request = server.receive(client.take())[0]
        assert isinstance(request, RequestReceived)
        server.respond(request.stream, 200, [], end_stream=False)
        client.receive(server.take())
        client.end(stream)
        server.receive(client.take())
        server.end(request.stream)
        client.receive(server.take())
        done += 1
    return done / (time.perf_counter() - begin)


def _line(name: str, size: int, mine: list[Rates], other: list[Rates]) -> str:
    def column(pick: Callable[[Rates], float]) -> str:
        us = statistics.median(map(pick, mine))
        them = statistics.median(map(pick, other))
        return f"{us:10,.0f}/s {us / them:5.1f}x"

    sent, received, both = (
        column(lambda r: r.sent),
        column(lambda r: r.received),
        column(lambda r: r.both),
    )
    bits = statistics.median(r.received for r in mine) * size * 8 / 1e9
    return f"{name:>8} | send {sent} | receive {received} ({bits:.1f} Gbit/s) | both {both}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=0.3, help="per measurement, at most 5")
    parser.add_argument("--rounds", type=int, default=5, help="at most 25")
    options = parser.parse_args()
    seconds, rounds = min(options.seconds, SECONDS_MAX), min(options.rounds, ROUNDS_MAX)
    for size in (64, 1024, 16_384):
        pairs = [(ours(size, seconds), theirs(size, seconds)) for _ in range(rounds)]
        line = _line(f"{size} B", size, [p[0] for p in pairs], [p[1] for p in pairs])
        sys.stdout.write(f"{line}\n")
    tunnels = statistics.median(our_tunnels(seconds) for _ in range(rounds))
    sys.stdout.write(f" tunnels | {tunnels:,.0f}/s opened, answered and closed, both sides\n")


if __name__ == "__main__":
    main()
