"""Direct connections between pods of one node: when the kernel carries them, and when never."""

from __future__ import annotations

import struct
import sys
from pathlib import Path

import pytest

from agent.datapath import programs
from agent.datapath.entries import LocalEndpoint, address_value
from bpf.layout import (
    POD_FLOWS_MAX,
    VERDICTS_MAX,
    Hint,
    Local,
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
    now_ns,
)
from tests.support.kernel.netns import eventually, run

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


def test_a_pod_with_many_open_connections_leaves_the_direct_path_to_others(
    pair: DirectBed,
) -> None:
    """Beyond its bound it has the ztunnel; what ends makes room again."""
    pair.open()
    with pair.map("pod_flows") as open_ones:

        def held() -> int:
            raw = open_ones.lookup(struct.pack("=I", pair.client_id))
            return 0 if raw is None else int.from_bytes(raw, sys.byteorder)

        pair.assert_direct()
        eventually(lambda: held() == 0)
        with pair.dial() as first, pair.app.accept()[0] as accepted:
            assert held() == 1
            open_ones.update(struct.pack("=I", pair.client_id), struct.pack("=Q", POD_FLOWS_MAX))
            pair.assert_captured()
            assert pair.counter("direct_pod_full") == 1
            pair.tables.put_verdict(pair.server_id, pair.client_id, PORT, GENERATION)
            with pair.client.listen(CLIENT4, PORT) as other, pair.server.dial((CLIENT4, PORT)):
                other.accept()[0].close()
            assert pair.counter("direct_vouched") == 3, "another pod's connection"
            accepted.close()
            first.close()
        eventually(lambda: held() == POD_FLOWS_MAX - 1)
        pair.assert_direct()
        # Two that ended at once where the count had begun anew.
        open_ones.update(struct.pack("=I", pair.client_id), struct.pack("=q", -1))
        pair.assert_direct()


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
    if "TULLE_HAS_MPTCP" not in programs.kernel_features():
        pytest.skip("this kernel cannot tell MPTCP's parts (Linux 5.19)")
    pair.open()
    with pair.client.socket(protocol=262) as sock:
        sock.connect((SERVER4, PORT))
        pair.at_client.outbound.accept()[0].close()
    assert pair.counter("direct_chosen") == 0


def test_a_full_table_forgets_verdicts_and_those_pairs_are_captured(pair: DirectBed) -> None:
    pair.open()
    for number in range(VERDICTS_MAX + 5000):
        pair.tables.put_verdict(1_000_000 + number, 5, 80, GENERATION)
    assert pair.used("verdicts") <= VERDICTS_MAX
    pair.assert_captured()
    assert pair.counter("direct_no_verdict") == 1


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
    with pair.map("locals") as table:
        table.update(bytes(address_value(parse_address("10.77.0.200"))), bytes(Local(workload=99)))
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
    for name in ("locals", "verdicts", "services", "vouched", "passthrough", "flows"):
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
