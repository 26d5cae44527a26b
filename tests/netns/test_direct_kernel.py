"""Direct connections between pods of one node: when the kernel carries them, and when never."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from ipaddress import ip_address

import pytest

from agent.datapath.direct import ServiceSlot, now_ns
from bpf.layout import FlowKind, Hint
from tests.support.direct_bed import (
    CLIENT4,
    GENERATION,
    LEASE_NS,
    PORT,
    SERVER4,
    SERVER6,
    VIP4,
    VIP6,
    DirectBed,
    direct_bed,
)


@pytest.fixture
def pair() -> Iterator[DirectBed]:
    with direct_bed() as made:
        yield made


def read_all(sock: socket.socket, bytes_wanted: int) -> None:
    while bytes_wanted > 0:
        read = len(sock.recv(bytes_wanted))
        assert read
        bytes_wanted -= read


WAYS = [
    pytest.param((SERVER4, PORT), False, id="v4"),
    pytest.param((SERVER6, PORT), False, id="v6"),
    pytest.param((SERVER4, PORT), True, id="v4-mapped"),
]


@pytest.mark.parametrize(("target", "mapped"), WAYS)
def test_an_allowed_pair_talks_without_the_tunnel(
    pair: DirectBed, target: tuple[str, int], mapped: bool
) -> None:
    pair.open()
    pair.assert_direct(target, mapped=mapped)
    assert pair.counter("direct_vouched") == pair.counter("inbound_vouched") == 1
    assert pair.counter("captured_v4") == pair.counter("captured_v6") == 0
    assert pair.counter("inbound_plaintext") == 0


def put_service(
    pair: DirectBed, vip: str, slots: list[tuple[int, str]], total: int = 4, port: int = PORT
) -> None:
    made = [ServiceSlot(weight, pair.server_id, ip_address(ip), port) for weight, ip in slots]
    pair.tables.put_service(pair.client_id, ip_address(vip), 80, total, made)


@pytest.mark.parametrize(
    ("vip", "endpoint", "mapped"),
    [(VIP4, SERVER4, False), (VIP6, SERVER6, False), (VIP4, SERVER4, True)],
    ids=["v4", "v6", "v4-mapped"],
)
def test_a_service_is_reached_at_its_endpoint_and_shown_as_dialled(
    pair: DirectBed, vip: str, endpoint: str, mapped: bool
) -> None:
    pair.open()
    put_service(pair, vip, [(4, endpoint)])
    pair.assert_direct((vip, 80), mapped=mapped)
    opened = pair.next_flow()
    assert opened.original == (ip_address(vip), 80)
    assert opened.target == (ip_address(endpoint), PORT)


def test_what_the_draw_finds_elsewhere_goes_to_the_tunnel_with_that_hint(pair: DirectBed) -> None:
    pair.open()
    put_service(pair, VIP4, [(0, SERVER4)])
    assert pair.assert_captured((VIP4, 80)) == Hint.ELSEWHERE
    put_service(pair, VIP6, [])
    assert pair.assert_captured((VIP6, 80)) == Hint.ELSEWHERE
    assert pair.assert_captured((VIP4, 81)) == Hint.NONE  # a port that nobody knows


def test_a_local_draw_without_a_verdict_goes_to_the_tunnel_with_that_hint(pair: DirectBed) -> None:
    pair.open()
    put_service(pair, VIP4, [(4, SERVER4)], port=9999)
    put_service(pair, VIP6, [(4, SERVER6)], port=9999)
    for vip in (VIP4, VIP6):
        assert pair.assert_captured((vip, 80)) == Hint.LOCAL


def test_the_shares_of_a_service_are_true(pair: DirectBed) -> None:
    pair.open()
    put_service(pair, VIP4, [(1, SERVER4)], total=4)
    pair.app.setblocking(False)
    pair.at_client.outbound.setblocking(False)
    for _ in range(400):
        pair.dial((VIP4, 80)).close()
    direct, captured = pair.counter("direct_chosen"), pair.counter("captured_v4")
    assert direct + captured == 400
    assert 60 <= direct <= 140  # 100 expected; beyond 4.6 standard deviations


NOT_DIRECT = ["no verdict", "stale", "lease over", "no lease", "other port", "source off", "gone"]


@pytest.mark.parametrize("why", NOT_DIRECT)
@pytest.mark.parametrize(("target", "mapped"), WAYS)
def test_in_doubt_the_tunnel_gets_it(
    pair: DirectBed, why: str, target: tuple[str, int], mapped: bool
) -> None:
    pair.open()
    match why:
        case "no verdict":
            pair.tables.drop_verdict(pair.client_id, pair.server_id, PORT)
        case "stale":
            pair.tables.set_state(GENERATION + 1, now_ns() + LEASE_NS)
        case "lease over":
            pair.tables.set_state(GENERATION, now_ns())
        case "no lease":
            pair.tables.set_state(0, 0)
        case "other port":
            target = (target[0], PORT + 1)
        case "source off":
            pair.bed.capture(pair.client, "uid-client", pair.at_client)
        case "gone":
            pair.bed.capture(pair.server, "uid-server", pair.at_server)
    assert pair.assert_captured(target, mapped=mapped) == Hint.NONE
    assert pair.counter("direct_chosen") == 0


def test_a_released_destination_is_not_direct_and_its_address_means_somebody_else_later(
    pair: DirectBed,
) -> None:
    pair.open()
    before = pair.server_id
    pair.bed.node.release("uid-server")
    pair.assert_captured()
    pair.app.close()
    pair.server.delete()
    second = pair.network.pod("second", SERVER4, SERVER6)
    pair.bed.capture(second, "uid-second", direct=True)
    assert pair.id_of("uid-second") not in (before, pair.client_id)
    pair.assert_captured()  # the old verdict is still there, about nobody
    assert pair.used("verdicts") == 1


def test_flow_events_tell_who_and_how_much(pair: DirectBed) -> None:
    pair.open()
    started = now_ns()
    with pair.dial() as dialled, pair.app.accept()[0] as accepted:
        opened = pair.next_flow()
        assert opened.kind is FlowKind.OPENED
        assert (opened.source_id, opened.destination_id) == (pair.client_id, pair.server_id)
        assert opened.client == (ip_address(CLIENT4), dialled.getsockname()[1])
        assert opened.target == opened.original == (ip_address(SERVER4), PORT)
        assert opened.generation == GENERATION
        assert started <= opened.opened_ns <= now_ns()
        assert (opened.sent_bytes, opened.received_bytes) == (0, 0)
        assert opened.srtt_us > 0
        dialled.sendall(b"x" * 1000)
        read_all(accepted, 1000)
        accepted.sendall(b"y" * 300_000)
        read_all(dialled, 300_000)
    closed = pair.next_flow()
    assert (closed.kind, closed.id, closed.aborted) == (FlowKind.CLOSED, opened.id, False)
    assert (closed.sent_bytes, closed.received_bytes) == (1000, 300_000)
    assert 0 < closed.age_ns < now_ns() - started
    assert pair.no_more_flows()
