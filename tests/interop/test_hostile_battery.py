"""Hostile peers and pods, one after the other, beside an honest neighbour of a real worker."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from tests.support.engine.battery import SLOWED, Outcome, battery
from tests.support.engine.battery_neighbours import NEIGHBOURS
from tests.support.peers import hostile_clients as client
from tests.support.peers import hostile_more as more
from tests.support.peers import hostile_servers as server
from tests.support.peers.hostile import Target

pytestmark = pytest.mark.alone

# Part of its rate that the neighbour keeps, and the worker's memory as a multiple of what it was.
RATE_PART_LEAST = 0.5
# Somebody who keeps all rules is a neighbour too: each has half of the worker, and who had that is
# not harmed, even if messages that come one by one cost it more than they did together.
SHARE_LEAST = 0.45
MEMORY_TIMES_MAX = 1.5
# CPU time beyond the neighbour's that is on some attacker's bill: a listener's loop is on none. And
# the grain of what the kernel says.
BILLED_PART, GRAIN_S = 0.8, 0.03
# CPU time that an attack may cost before anything is delayed: `WORK_BURST_ALL_S`, and noise.
BURST_S = 0.4
DISPLACED = "handshake_displaced connections_max"
PAUSED = "accept_paused_too_many_connections_total"


@dataclass(frozen=True)
class Row:
    name: str
    attack: Callable[[Target], None]
    counted: str  # reasons, or other counters of the worker, of which one rises
    each_us: float  # CPU time of the worker, at most, for each thing that the attacker does
    kind: str = "stream"  # the neighbour's, in the gate; "" if it is not one of the gate's
    within_the_rules: bool = False
    besides: tuple[str, ...] = tuple(NEIGHBOURS)


ROWS = [
    Row("idle tunnels", client.idle_tunnels, f"tunnels_max {SLOWED}", 3000),
    Row(
        "silent handshakes",
        client.silent_handshakes,
        "handshake_displaced connections_max",
        300,
        kind="tunnels",
    ),
    Row("handshakes that fail", client.failed_handshakes, "tls_handshake", 3000),
    Row("denied CONNECTs", client.denied_connects, "destination_mismatch", 5, kind="requests"),
    # On a slow machine fair turns keep it below the rate at which a session ends it.
    Row("CONNECT and reset", client.connect_and_reset, f"http2 {SLOWED}", 10, kind="outbound"),
    Row("PING", client.pings, "http2", 1),
    Row("SETTINGS", client.settings, "http2", 1),
    Row("WINDOW_UPDATE", client.windows, "http2", 1),
    Row("PRIORITY", client.priorities, "http2", 1),
    Row("empty DATA", client.empty_data, "http2", 1),
    Row("DATA of one byte", client.one_byte_data, SLOWED, 2),
    Row("TLS records of one byte", client.tiny_records, "silent_records", 10),
    Row("plaintext connections", client.plaintext_connections, "recursion", 50, kind="plaintext"),
    Row("CONTINUATION", client.continuations, "http2", 1),
    Row("huge header blocks", client.huge_headers, "http2", 100, kind="plaintext"),
    Row("key updates", client.key_updates, "silent_records", 5),
    Row("streams that nobody reads", client.never_reads, SLOWED, 2000, kind="plaintext"),
    Row("many handshakes at once", client.many_handshakes, "tls_handshake", 3000, kind=""),
    Row("many tunnels of one identity", client.many_tunnels, SLOWED, 2, kind="plaintext"),
    Row("many identities of one host", client.many_identities, SLOWED, 2, kind="requests"),
    Row("GOAWAY", client.goaways, SLOWED, 1, kind="outbound"),
    Row("windows of one byte", client.tiny_windows, "http2", 5, kind=""),
    Row(
        "DATA and reset",
        client.data_and_reset,
        SLOWED,
        60,
        kind="outbound",
    ),
    Row("short requests", client.short_requests, SLOWED, 300, within_the_rules=True),
    Row("reads a little at a time", client.slow_reads, SLOWED, 2000, kind=""),
    Row("dials to strangers", server.strangers, "connect_failed", 200, kind=""),
    Row("both ways at once", server.both_ways, SLOWED, 1000, kind=""),
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
    Row("streams that end at once", more.ended_at_once, SLOWED, 60, kind=""),
    Row("trailers", more.trailers, SLOWED, 60, kind=""),
    Row("a port that is closed", more.closed_port, "connect_failed", 30, kind=""),
    Row("an app that is full", more.full_app, "http2", 10, kind=""),
    Row("padded DATA", more.padded_data, SLOWED, 60, kind=""),
    Row(
        "a tunnel for each request",
        more.tunnel_each,
        SLOWED,
        3000,
    ),
    Row("outbound connections that are cut", more.cut_outbound, "app_left", 300, kind=""),
    Row(
        "connections from anywhere",
        more.anywhere,
        SLOWED,
        600,
        # Another stranger has one share of many: it has no identity either.
        besides=tuple(kind for kind in NEIGHBOURS if kind != "plaintext"),
    ),
]

TRIES = 3
STRICT = os.environ.get("TULLE_BATTERY") == "strict"
# A rate is a matter of the machine as well: the gate asks for a little less than `make battery`,
# which puts each attack beside neighbours of all kinds.
SLACK = 1.0 if STRICT else 0.9
PAIRS = [(row, kind) for row in ROWS for kind in (row.besides if STRICT else [row.kind]) if kind]


def problems(row: Row, outcome: Outcome) -> list[str]:
    """Words for each way in which the attack did more than it may."""
    bills = outcome.bills
    fair = row.within_the_rules and bills.share >= SHARE_LEAST
    found = {
        "rate": outcome.part < RATE_PART_LEAST * SLACK and not fair,
        "memory": outcome.most_mib > MEMORY_TIMES_MAX * outcome.idle_mib,
        "cpu": outcome.cpu_s > BURST_S + outcome.done * row.each_us / 1e6,
        "unpaid": bills.attackers < BILLED_PART * (bills.worker - bills.neighbour) - GRAIN_S,
        "not counted": outcome.counted.keys().isdisjoint(row.counted.split()),
        "no attack": not outcome.done,
    }
    return [word for word, is_so in found.items() if is_so]


def run(row: Row, kind: str, *weaknesses: str) -> tuple[list[str], str]:
    with battery(*weaknesses, kinds=[kind]) as made:
        outcome = made.measure(row.attack)
    return problems(row, outcome), str(outcome)


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
    for _ in range(TRIES - 1):  # how far an attack comes is a matter of the machine too
        if word not in found:
            found, seen = run(row, "stream", weakness)
    assert word in found, seen
