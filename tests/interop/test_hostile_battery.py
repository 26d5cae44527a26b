"""Hostile peers and pods, one after the other, beside an honest neighbour of a real worker."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from tests.support.engine.battery import Outcome, battery
from tests.support.engine.battery_neighbours import NEIGHBOURS
from tests.support.peers import hostile_clients as client
from tests.support.peers import hostile_servers as server
from tests.support.peers.hostile import Target

# Part of its rate that the neighbour keeps, and the worker's memory as a multiple of what it was.
RATE_PART_LEAST = 0.5
# Somebody who keeps all rules is a neighbour too: half of the worker for each, and whoever sends in
# bulk loses some of its batches beside many short requests besides.
WITHIN_THE_RULES = 0.35
# One that opens a stream for each request loses its batches as well: 0.44 to 0.55 of its rate.
KIND_PARTS = {"requests": 0.4}
MEMORY_TIMES_MAX = 1.5
# CPU time that an attack may cost before anything is delayed: `WORK_BURST_ALL_S`, and noise.
BURST_S = 0.4
DISPLACED = "handshake_displaced connections_max"
PAUSED = "accept_paused_too_many_connections_total"


@dataclass(frozen=True)
class Row:
    name: str
    attack: Callable[[Target], None]
    counted: str  # reasons, or other counters of the worker; "" if nothing has to be refused
    each_us: float  # CPU time of the worker, at most, for each thing that the attacker does
    kind: str = "stream"  # the neighbour's, in the gate; "" if it is not one of the gate's
    rate_part: float = RATE_PART_LEAST


ROWS = [
    Row("idle tunnels", client.idle_tunnels, "", 3000),
    Row(
        "silent handshakes",
        client.silent_handshakes,
        "handshake_displaced connections_max",
        300,
        kind="tunnels",
    ),
    Row("handshakes that fail", client.failed_handshakes, "tls_handshake", 3000),
    Row("denied CONNECTs", client.denied_connects, "destination_mismatch", 5, kind="requests"),
    Row("CONNECT and reset", client.connect_and_reset, "http2", 10, kind="outbound"),
    Row("PING", client.pings, "http2", 1),
    Row("SETTINGS", client.settings, "http2", 1),
    Row("WINDOW_UPDATE", client.windows, "http2", 1),
    Row("PRIORITY", client.priorities, "http2", 1),
    Row("empty DATA", client.empty_data, "http2", 1),
    Row("DATA of one byte", client.one_byte_data, "", 2),
    Row("TLS records of one byte", client.tiny_records, "silent_records", 10),
    Row("plaintext connections", client.plaintext_connections, "recursion", 50, kind="plaintext"),
    Row("CONTINUATION", client.continuations, "http2", 1),
    Row("huge header blocks", client.huge_headers, "http2", 100, kind="plaintext"),
    Row("key updates", client.key_updates, "silent_records", 5),
    Row("streams that nobody reads", client.never_reads, "", 2000, kind="plaintext"),
    Row("many handshakes at once", client.many_handshakes, "tls_handshake", 3000, kind=""),
    Row("many tunnels of one identity", client.many_tunnels, "", 2, kind="plaintext"),
    Row("many identities of one host", client.many_identities, "", 2, kind="requests"),
    Row("GOAWAY", client.goaways, "", 1, kind="outbound"),
    Row("windows of one byte", client.tiny_windows, "http2", 5, kind=""),
    Row("DATA and reset", client.data_and_reset, "http2", 10, kind=""),
    Row("short requests", client.short_requests, "", 300, rate_part=WITHIN_THE_RULES),
    Row("reads a little at a time", client.slow_reads, "", 2000, kind=""),
    Row("dials to strangers", server.strangers, "connect_failed", 200, kind=""),
    Row("both ways at once", server.both_ways, "", 1000, kind=""),
    Row("a server that never answers", server.never_answers, PAUSED, 200),
    Row("a server's PINGs", server.floods_pings, "http2_failed", 300),
    Row("a server's PINGs in drips", server.drips_pings, "silent_records", 1000),
    Row(
        "a server's DATA before its answer",
        server.floods_data,
        "stream_reset",
        1000,
        kind="requests",
    ),
    Row("a server's SETTINGS", server.floods_settings, "http2_failed", 300),
    Row("a server that goes away", server.goes_away, "tunnel_lost", 300),
    Row("a server that closes", server.closes, "tls_failed", 300),
    Row("a server that does not read", server.stops_reading, PAUSED, 300),
    Row("dials to nobody", server.nobody_there, "connect_failed", 200, kind="outbound"),
    Row("connections that are held", server.hoard, PAUSED, 300),
]

TRIES = 3
STRICT = os.environ.get("TULLE_BATTERY") == "strict"
# A rate is a matter of the machine as well: the gate asks for a little less than `make battery`,
# which puts each attack beside neighbours of all kinds.
SLACK = 1.0 if STRICT else 0.9
PAIRS = [(row, kind) for row in ROWS for kind in (NEIGHBOURS if STRICT else [row.kind]) if kind]


def problems(row: Row, kind: str, outcome: Outcome) -> list[str]:
    """Words for each way in which the attack did more than it may."""
    part = min(row.rate_part, KIND_PARTS.get(kind, RATE_PART_LEAST))
    found = {
        "rate": outcome.part < part * SLACK,
        "memory": outcome.most_mib > MEMORY_TIMES_MAX * outcome.idle_mib,
        "cpu": outcome.cpu_s > BURST_S + outcome.done * row.each_us / 1e6,
        "not counted": bool(row.counted) and outcome.counted.keys().isdisjoint(row.counted.split()),
        "no attack": not outcome.done,
    }
    return [word for word, is_so in found.items() if is_so]


def run(row: Row, kind: str, *weaknesses: str) -> tuple[list[str], str]:
    with battery(*weaknesses, kinds=[kind]) as made:
        outcome = made.measure(row.attack)
    return problems(row, kind, outcome), str(outcome)


@pytest.mark.parametrize(("row", "kind"), PAIRS, ids=[f"{row.name}, {kind}" for row, kind in PAIRS])
def test_a_hostile_peer_harms_itself(row: Row, kind: str) -> None:
    found, seen = run(row, kind)
    for _ in range(TRIES - 1):  # the machine may have been busy with something else
        if found:
            again, seen_again = run(row, kind)
            found, seen = [each for each in found if each in again], f"{seen}; {seen_again}"
    assert not found, seen


@pytest.mark.parametrize(
    ("weakness", "name", "word"),
    [
        ("frames", "SETTINGS", "not counted"),
        ("turns", "DATA of one byte", "rate"),
        ("portions", "silent handshakes", "memory"),
    ],
)
def test_the_battery_notices_a_bound_that_is_gone(weakness: str, name: str, word: str) -> None:
    (row,) = [each for each in ROWS if each.name == name]
    found, seen = run(row, "stream", weakness)
    assert word in found, seen
