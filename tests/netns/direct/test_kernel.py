"""Direct connections between pods of one node: when the kernel carries them, and when never."""

from __future__ import annotations

import ctypes
import select
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.datapath.entries import LocalEndpoint, address_value
from agent.datapath.flows import parse_record
from agent.datapath.ring import record_bytes
from bpf import layout
from bpf.layout import (
    FLOWS_UNREAD_MAX,
    VERDICTS_MAX,
    VOUCH_GRACE_NS,
    FlowEvent,
    Hint,
    Tuple,
    Vouched,
)
from control.model.address import Endpoint, parse_address
from tests.support.kernel.direct_bed import (
    CLIENT4,
    GENERATION,
    LEASE_NS,
    PORT,
    SERVER4,
    SERVER6,
    VIP4,
    VIP6,
    DirectBed,
    destination_and_hint,
    direct_bed,
    now_ns,
)
from tests.support.kernel.netns import eventually, run
from tests.support.kernel.raw_tcp import SYN, send_segment


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
    made = [
        LocalEndpoint(weight, pair.server_id, Endpoint(parse_address(ip), port))
        for weight, ip in slots
    ]
    pair.tables.put_service(pair.client_id, parse_address(vip), 80, total, made)


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
    assert opened.original == Endpoint(parse_address(vip), 80)
    assert opened.target == Endpoint(parse_address(endpoint), PORT)


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
            pair.drop_verdict()
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
        record = pair.next_record()
        raw = FlowEvent.from_buffer_copy(record)
        assert raw.generation == GENERATION
        assert started <= raw.opened_ns <= now_ns()
        opened = parse_record(record)
        assert not opened.is_closed
        assert (opened.source, opened.destination) == (pair.client_id, pair.server_id)
        assert opened.client == Endpoint(parse_address(CLIENT4), dialled.getsockname()[1])
        assert opened.target == opened.original == Endpoint(parse_address(SERVER4), PORT)
        assert (opened.sent, opened.received) == (0, 0)
        assert opened.srtt_us > 0
        dialled.sendall(b"x" * 1000)
        read_all(accepted, 1000)
        accepted.sendall(b"y" * 300_000)
        read_all(dialled, 300_000)
    closed = pair.next_flow()
    assert (closed.is_closed, closed.id, closed.error) == (True, opened.id, "")
    assert (closed.sent, closed.received) == (1000, 300_000)
    assert 0 < closed.age_s < (now_ns() - started) / 1e9
    assert pair.no_more_flows()


def test_a_refused_connect_is_told_and_leaves_nothing(pair: DirectBed) -> None:
    pair.open()
    pair.app.close()
    with pytest.raises(ConnectionRefusedError):
        pair.dial()
    failed = pair.next_flow()
    assert (failed.error, failed.sent, failed.received) == ("failed", 0, 0)
    assert failed.target == Endpoint(parse_address(SERVER4), PORT)
    assert pair.used("vouched") == 0
    pair.assert_captured()  # the tunnel tries next, who knows why


def test_a_socket_that_failed_directly_is_captured_like_any_other(pair: DirectBed) -> None:
    pair.open()
    pair.app.close()
    with pair.client.socket() as sock:
        sock.settimeout(None)  # a refused non-blocking socket cannot connect again at once
        with pytest.raises(ConnectionRefusedError):
            sock.connect((SERVER4, PORT))
        assert pair.next_flow().error == "failed"
        sock.connect((SERVER4, PORT))
        with pair.at_client.outbound.accept()[0] as accepted:
            assert destination_and_hint(accepted) == ((SERVER4, PORT), Hint.NONE)
    assert pair.counter("direct_chosen") == 1
    assert pair.no_more_flows()


def test_a_socket_that_was_disconnected_and_listens_tells_no_second_end(pair: DirectBed) -> None:
    pair.open()
    with pair.dial() as sock, pair.app.accept()[0]:
        assert not pair.next_flow().is_closed
        disconnect(sock)
        closed = pair.next_flow()
        assert (closed.is_closed, closed.error) == (True, "aborted")
        sock.listen()
    assert pair.no_more_flows()


def disconnect(sock: socket.socket) -> None:
    """connect(AF_UNSPEC), which Python cannot say."""
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.connect(sock.fileno(), bytes(16), 16) == 0


def test_ends_are_told_for_what_they_are(pair: DirectBed) -> None:
    pair.open()
    sock, accepted = pair.dial(), pair.app.accept()[0]
    sock.sendall(b"question")
    sock.shutdown(socket.SHUT_WR)
    read_all(accepted, 8)
    accepted.sendall(b"answer")
    accepted.close()
    read_all(sock, 6)
    assert sock.recv(1) == b""
    sock.close()
    assert not pair.next_flow().is_closed
    polite = pair.next_flow()
    assert (polite.error, polite.sent, polite.received) == ("", 8, 6)
    sock, accepted = pair.dial(), pair.app.accept()[0]
    sock.sendall(b"never read")
    readable = select.poll()  # select() takes no descriptor above 1,023
    readable.register(accepted, select.POLLIN)
    assert readable.poll(5_000)
    accepted.close()  # with data unread: a reset
    assert not pair.next_flow().is_closed
    rude = pair.next_flow()
    assert (rude.error, rude.sent) == ("aborted", 10)
    sock.close()


def test_the_pod_itself_and_the_tunnels_port_are_never_direct(pair: DirectBed) -> None:
    pair.open()
    pair.tables.put_verdict(pair.client_id, pair.server_id, 15008, GENERATION)
    pair.tables.put_verdict(pair.client_id, pair.client_id, PORT, GENERATION)
    pair.assert_captured((SERVER4, 15008))
    own = LocalEndpoint(4, pair.client_id, Endpoint(parse_address(CLIENT4), PORT))
    pair.tables.put_service(pair.client_id, parse_address(VIP4), 80, 4, [own])
    assert pair.assert_captured((VIP4, 80)) == Hint.LOCAL
    assert pair.counter("direct_chosen") == 0


def test_a_socket_bound_to_a_foreign_address_goes_to_the_tunnel(pair: DirectBed) -> None:
    pair.open()
    with pair.client.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.connect((SERVER4, PORT))
        pair.at_client.outbound.accept()[0].close()
    assert pair.counter("direct_odd_socket") == 1
    with pair.client.socket() as sock:  # its own address is as good as none
        sock.bind((CLIENT4, 0))
        sock.connect((SERVER4, PORT))
        pair.app.accept()[0].close()


def test_a_pod_that_routes_from_another_address_fails_once_and_is_captured_then(
    pair: DirectBed,
) -> None:
    pair.open()
    inside = ("ip", "-n", pair.client.namespace)
    run(*inside, "addr", "add", "10.77.0.99/24", "dev", "eth0")
    run(*inside, "route", "add", f"{SERVER4}/32", "dev", "eth0", "src", "10.77.0.99")
    with pytest.raises(ConnectionRefusedError):  # not as plaintext of nobody
        pair.dial()
    assert pair.counter("direct_vouched") == pair.counter("inbound_plaintext") == 0
    assert pair.counter("inbound_stale") == 1
    assert pair.used("vouched") == 0
    run(*inside, "route", "del", f"{SERVER4}/32")
    pair.assert_captured()


def test_multipath_tcp_stays_with_the_tunnel(pair: DirectBed) -> None:
    pair.open()
    with pair.client.socket(protocol=262) as sock:
        sock.connect((SERVER4, PORT))
        pair.at_client.outbound.accept()[0].close()
    assert pair.counter("direct_chosen") == 0


def test_another_pod_at_the_same_port_of_its_own_address_is_not_let_in(pair: DirectBed) -> None:
    pair.open()
    third = pair.network.pod("third", "10.77.0.4")  # captured or not: nobody vouches for it
    with pair.dial() as dialled, third.socket() as sock:
        pair.app.accept()[0].close()
        sock.bind(("0.0.0.0", dialled.getsockname()[1]))
        sock.connect((SERVER4, PORT))
        pair.at_server.plaintext.accept()[0].close()


def vouch_by_hand(pair: DirectBed, source_port: int, generation: int, age_ns: int) -> None:
    key = Tuple(
        source=address_value(parse_address(CLIENT4)),
        source_port=socket.htons(source_port),
        destination=address_value(parse_address(SERVER4)),
        destination_port=socket.htons(PORT),
    )
    value = Vouched(generation=generation, at_ns=now_ns() - age_ns, destination=pair.server_id)
    with pair.map("vouched") as vouched:
        vouched.update(bytes(key), bytes(value))


@pytest.mark.parametrize(
    ("generation", "age_ns", "passes"),
    [
        (None, 0, False),
        (GENERATION, VOUCH_GRACE_NS * 9, True),
        (GENERATION - 1, VOUCH_GRACE_NS, False),
    ],
    ids=["nobody vouched", "vouched", "stale"],
)
def test_a_raw_syn_passes_only_as_what_was_vouched_for(
    pair: DirectBed, generation: int | None, age_ns: int, passes: bool
) -> None:
    pair.open()
    if generation is not None:
        vouch_by_hand(pair, 40000, generation, age_ns)
    spoofer = pair.network.pod("spoofer", "10.77.0.5")
    send_segment(spoofer, (CLIENT4, 40000), (SERVER4, PORT), SYN)
    names = ("inbound_plaintext", "inbound_vouched", "inbound_stale")
    eventually(lambda: sum(pair.counter(name) for name in names) > 0)
    assert pair.counter("inbound_vouched") == int(passes)
    assert pair.counter("inbound_stale") == int(generation is not None and not passes)


def test_a_vouched_syn_for_a_pod_that_is_gone_does_not_pass_to_its_successor(
    pair: DirectBed,
) -> None:
    pair.open()
    vouch_by_hand(pair, 40000, GENERATION, 0)
    pair.bed.node.release("uid-server")
    pair.bed.capture(pair.server, "uid-server", pair.at_server, direct=True)
    send_segment(pair.client, (CLIENT4, 40000), (SERVER4, PORT), SYN)
    eventually(lambda: pair.counter("inbound_stale") == 1)
    assert pair.counter("inbound_vouched") == 0


def test_a_full_table_forgets_verdicts_and_those_pairs_are_captured(pair: DirectBed) -> None:
    pair.open()
    for number in range(VERDICTS_MAX + 5000):
        pair.tables.put_verdict(1_000_000 + number, 5, 80, GENERATION)
    assert pair.used("verdicts") <= VERDICTS_MAX
    pair.assert_captured()
    assert pair.counter("direct_no_verdict") == 1


def test_nothing_goes_direct_while_the_reader_is_far_behind(pair: DirectBed) -> None:
    pair.open()
    room = FLOWS_UNREAD_MAX // record_bytes(ctypes.sizeof(FlowEvent))
    pair.app.settimeout(None)
    for _ in range(room // 2):  # two events each
        pair.dial().close()
        pair.app.accept()[0].close()
    eventually(lambda: pair.counter("flow_told") >= room - 1)
    assert pair.counter("direct_reader_behind") == 0
    pair.dial().close()
    pair.app.accept()[0].close()
    eventually(lambda: pair.counter("flow_told") >= room + 1)
    pair.assert_captured()
    assert pair.counter("direct_reader_behind") == 1
    while pair.tables.read_flows(100):
        pass
    pair.assert_direct()


def test_events_that_find_no_room_are_counted_and_break_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    small = layout.MAPS["flows"]._replace(max_entries=4096)
    monkeypatch.setitem(layout.MAPS, "flows", small)
    with direct_bed() as pair:
        pair.open()
        for _ in range(40):
            pair.assert_direct()
        eventually(lambda: pair.counter("flow_told") + pair.counter("flow_lost") == 80)
        lost = pair.counter("flow_lost")
        assert lost >= 80 - 4096 // 128
        (usage,) = (use for use in pair.bed.node.usage() if use.name == "flows")
        assert (usage.max, usage.drops) == (4096, lost)
        assert len(pair.tables.read_flows(100)) == 80 - lost
        pair.assert_direct()


def test_a_new_agent_finds_workloads_tables_and_unread_events(pair: DirectBed) -> None:
    pair.open()
    ids = (pair.client_id, pair.server_id)
    highest = max(ids)
    pair.assert_direct()
    pair.bed.node.close()
    pair.bed.node = pair.bed.reopened()
    assert (pair.client_id, pair.server_id) == ids
    assert pair.tables.state()[0] == GENERATION
    assert pair.next_flow().source == pair.client_id
    pair.assert_direct()
    # The highest id went with its pod, an agent ended: it is still not given again.
    third = pair.network.pod("third", "10.77.0.4")
    pair.bed.capture(third, "uid-third")
    pair.bed.node.release("uid-third")
    pair.bed.node.close()
    pair.bed.node = pair.bed.reopened()
    pair.bed.capture(third, "uid-fourth")
    assert pair.id_of("uid-fourth") == highest + 2


def test_what_a_dead_agent_left_in_locals_is_cleared(pair: DirectBed) -> None:
    pair.tables.add_local(parse_address("10.77.0.200"), 99)
    pair.bed.node.close()
    pair.bed.node = pair.bed.reopened()
    assert pair.used("locals") == 4


def test_a_version_with_another_layout_takes_pods_and_ids_over(pair: DirectBed) -> None:
    pair.open()
    ids = (pair.client_id, pair.server_id)
    pair.bed.node.close()
    pair.bed.node = pair.bed.reopened(version="other")
    assert (pair.client_id, pair.server_id) == ids
    pair.assert_captured()  # its tables are new: no lease, no verdict
    pair.open()
    pair.assert_direct()
    third = pair.network.pod("third", "10.77.0.4")
    pair.bed.capture(third, "uid-third")
    assert pair.id_of("uid-third") == max(ids) + 1


def test_the_tables_memory_is_what_the_header_says(pair: DirectBed) -> None:
    sizes = []
    for name in ("locals", "verdicts", "services", "vouched", "flows"):
        with pair.map(name) as table:
            sizes.append(memory_bytes(table.fd))
    assert all(sizes)
    assert sum(sizes) < 12 << 20


def memory_bytes(map_fd: int) -> int:
    """The kernel's charge for a map."""
    text = Path(f"/proc/self/fdinfo/{map_fd}").read_text(encoding="ascii")
    fields = dict(line.split(":", 1) for line in text.splitlines())
    return int(fields["memlock"])


def test_who_is_not_enrolled_pays_nothing_and_is_told_nothing(pair: DirectBed) -> None:
    pair.open()
    plain = pair.network.pod("plain", "10.77.0.6")
    far = pair.network.pod("far", "10.77.0.7")
    with far.listen("0.0.0.0", PORT) as server, plain.socket() as sock:
        sock.connect(("10.77.0.7", PORT))
        server.accept()[0].close()
    assert sum(pair.bed.node.counters().values()) == 0
