"""DATA frames per second through the tunnel's HTTP/2 layer, one thread, beside something else.

    python -m tests.bench.hbone_frames [--seconds 0.3] [--rounds 5]
    python -m tests.bench.hbone_frames --against PATH [--seconds 0.1] [--rounds 25]

The first stands it beside the h2 library. The second beside the same layer in another checkout,
which must be as compiled as this one, for a change that claims to cost nothing. Both sides take
turns, so the ratio stays fair on a busy machine; a turn of the second counts its fastest pass.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import h2.config
import h2.connection
import h2.events
import h2.settings

from ztunnel.compiled import COMPILED
from ztunnel.hbone.events import RequestReceived
from ztunnel.hbone.frames import FRAME_HEADER_BYTES
from ztunnel.hbone.session import Session
from ztunnel.hbone.settings import CLIENT_SETTINGS, SERVER_SETTINGS, Role
from ztunnel.hbone.stream import Stream

ROOT = pathlib.Path(__file__).resolve().parents[2]
# One TLS read's worth, which the engine hands over at once.
READ_BYTES = 256 * 1024
SECONDS_MAX = 5.0
ROUNDS_MAX = 100
TUNNELS_PER_PASS = 20


@dataclass(frozen=True, slots=True)
class Rates:
    """Frames per second of one measurement."""

    sent: float
    received: float

    @property
    def both(self) -> float:
        return 1 / (1 / self.sent + 1 / self.received)


class Pair:
    """Two sessions that have exchanged their SETTINGS, and open tunnels between them."""

    def __init__(self, tunnels: int = 0) -> None:
        self.client = Session(Role.CLIENT, CLIENT_SETTINGS)
        self.server = Session(Role.SERVER, SERVER_SETTINGS)
        self.client.start()
        self.server.start()
        for _ in range(2):
            self.server.receive(self.client.take())
            self.client.receive(self.server.take())
        self.streams = [self._open() for _ in range(tunnels)]

    def _open(self) -> Stream:
        stream = self.client.request("10.0.0.1:80", [])
        (request,) = self.server.receive(self.client.take())
        assert isinstance(request, RequestReceived)
        self.server.respond(request.stream, 200, [], end_stream=False)
        self.client.receive(self.server.take())
        return stream

    def deliver(self, stream: Stream, piece: memoryview, run: list[memoryview] | None) -> None:
        """Consume payload as an app's relay does."""
        size = len(piece) if run is None else sum(map(len, run))
        self.server.consumed(stream, size)


def ours(size: int, seconds: float, frames: int = 0, tunnels: int = 1) -> Rates:
    """The fastest pass of `seconds`: `frames` frames of `size` bytes, the tunnels in turn, in one
    read, or as many as fill one."""
    pair = Pair(tunnels)
    client, server = pair.client, pair.server
    batch = frames or max(1, READ_BYTES // (FRAME_HEADER_BYTES + size))
    buffer = bytearray(FRAME_HEADER_BYTES + size)
    turns = [pair.streams[number % tunnels] for number in range(batch)]
    passes: list[Rates] = []
    stop = time.perf_counter() + seconds
    while (begin := time.perf_counter()) < stop:
        done = 0
        for stream in turns:
            if client.room(stream) >= size:
                client.frame_data(stream, buffer, size)
                client.outbound += buffer
                done += 1
        sent = client.take()
        middle = time.perf_counter()
        server.receive(memoryview(sent), pair.deliver)
        updates = server.take()
        end = time.perf_counter()
        client.receive(updates)
        del sent  # an engine does not keep it: its memory is what the next pass grows into
        if done:
            passes.append(Rates(done / (middle - begin), done / (end - middle)))
    return Rates(max(each.sent for each in passes), max(each.received for each in passes))


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
    """As `ours`, by the h2 library."""
    client, server = _h2_pair()
    batch = max(1, READ_BYTES // (size + 9))
    payload = bytes(size)
    passes: list[Rates] = []
    stop = time.perf_counter() + seconds
    while (begin := time.perf_counter()) < stop:
        done = 0
        for _ in range(batch):
            if client.local_flow_control_window(1) >= size:
                client.send_data(1, payload)
                done += 1
        sent = client.data_to_send()
        middle = time.perf_counter()
        for event in server.receive_data(sent):
            if isinstance(event, h2.events.DataReceived):
                server.acknowledge_received_data(event.flow_controlled_length, 1)
        updates = server.data_to_send()
        end = time.perf_counter()
        if updates:
            client.receive_data(updates)
        if done:
            passes.append(Rates(done / (middle - begin), done / (end - middle)))
    return Rates(max(each.sent for each in passes), max(each.received for each in passes))


def our_tunnels(seconds: float) -> float:
    """CONNECT, 200, both ends closed: tunnels per second, both sides together."""
    pair = Pair()
    client, server = pair.client, pair.server
    fastest, number = 0.0, 0
    stop = time.perf_counter() + seconds
    while (begin := time.perf_counter()) < stop:
        for _ in range(TUNNELS_PER_PASS):
            number += 1
            stream = client.request("10.0.0.1:80", [], (("forwarded", f"for={number}"),))
            request = server.receive(client.take())[0]
            assert isinstance(request, RequestReceived)
            server.respond(request.stream, 200, [], end_stream=False)
            client.receive(server.take())
            client.end(stream)
            server.receive(client.take())
            server.end(request.stream)
            client.receive(server.take())
        fastest = max(fastest, TUNNELS_PER_PASS / (time.perf_counter() - begin))
    return fastest


# -- beside another checkout ---------------------------------------------------------------------


def one_round(seconds: float) -> dict[str, float]:
    """Rates of each case, by its name."""
    found = {"tunnels": our_tunnels(seconds)}
    for name, size, frames, tunnels in (
        ("64 B, one a read", 64, 1, 1),
        ("64 B, 100 a read", 64, 100, 1),
        ("64 B, 50 tunnels", 64, 100, 50),
    ):
        rates = ours(size, seconds, frames, tunnels)
        found[f"{name}, send"], found[f"{name}, receive"] = rates.sent, rates.received
    # Only received: how fast much is sent depends on where the heap lets a bytearray grow.
    found["16 KiB, receive"] = ours(16_384, seconds).received
    found["1 MiB, receive"] = ours((1 << 20) - FRAME_HEADER_BYTES, seconds, 1).received
    return found


def answer_rounds(seconds: float) -> None:
    """Do a round for each line of standard input, with the checkout that is the current folder."""
    sys.stdout.write(f"compiled: {COMPILED}\n")
    sys.stdout.flush()
    for _ in sys.stdin:
        sys.stdout.write(json.dumps(one_round(seconds)) + "\n")
        sys.stdout.flush()


class Checkout:
    """A process that measures one checkout with this program."""

    def __init__(self, root: pathlib.Path, seconds: float) -> None:
        python = root / ".venv/bin/python"
        self._process = subprocess.Popen(
            [python if python.exists() else sys.executable, __file__, "--answer", str(seconds)],
            cwd=root,
            env={**os.environ, "PYTHONPATH": str(root)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.rounds: list[dict[str, float]] = []
        self.compiled = self._line()

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()

    def measure(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write("go\n")
        self._process.stdin.flush()
        self.rounds.append(json.loads(self._line()))

    def close(self) -> None:
        self._process.communicate()


def against(other: pathlib.Path, seconds: float, rounds: int) -> None:
    """Print the rates here divided by those of the other checkout, and the spread of the ratio."""
    here, there = (Checkout(root, seconds) for root in (ROOT, other))
    sys.stdout.write(f"here {here.compiled}there {there.compiled}")
    for number in range(rounds):
        for each in (here, there) if number % 2 else (there, here):
            each.measure()
    here.close()
    there.close()
    for name in here.rounds[0]:
        pairs = [
            (mine[name], its[name]) for mine, its in zip(here.rounds, there.rounds, strict=True)
        ]
        low, middle, high = statistics.quantiles([mine / its for mine, its in pairs], n=4)
        rate = statistics.median(mine for mine, _ in pairs)
        sys.stdout.write(f"{name:>26} {rate:12,.0f}/s {middle:6.3f}x ({low:.3f} to {high:.3f})\n")


# -- beside h2 -----------------------------------------------------------------------------------


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
    parser.add_argument("--rounds", type=int, default=5, help=f"at most {ROUNDS_MAX}")
    parser.add_argument("--against", type=pathlib.Path, help="another checkout")
    parser.add_argument("--answer", type=float, default=0.0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    seconds, rounds = min(options.seconds, SECONDS_MAX), min(options.rounds, ROUNDS_MAX)
    if options.answer:
        answer_rounds(options.answer)
        return
    if options.against:
        against(options.against.resolve(), seconds, max(rounds, 2))
        return
    for size in (64, 1024, 16_384):
        pairs = [(ours(size, seconds), theirs(size, seconds)) for _ in range(rounds)]
        line = _line(f"{size} B", size, [p[0] for p in pairs], [p[1] for p in pairs])
        sys.stdout.write(f"{line}\n")
    tunnels = statistics.median(our_tunnels(seconds) for _ in range(rounds))
    sys.stdout.write(f" tunnels | {tunnels:,.0f}/s opened, answered and closed, both sides\n")


if __name__ == "__main__":
    main()
