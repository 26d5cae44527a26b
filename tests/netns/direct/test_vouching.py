"""SYNs that arrive in a captured pod: vouched for, stale, of strangers, of ztunnels."""

from __future__ import annotations

import errno
import socket

import pytest

from agent.datapath.entries import PlaintextRules, address_value
from bpf.layout import (
    VOUCH_GRACE_NS,
    Tuple,
    Vouched,
)
from control.model.address import parse_address
from tests.support.kernel.direct_bed import (
    CLIENT4,
    GENERATION,
    PORT,
    SERVER4,
    SERVER6,
    DirectBed,
    now_ns,
)
from tests.support.kernel.netns import eventually
from tests.support.kernel.raw_tcp import SYN, send_segment

BUSY_PORT = 7070


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
    names = ("inbound_plaintext", "inbound_vouched", "inbound_stale", "inbound_unvouched")
    eventually(lambda: sum(pair.counter(name) for name in names) > 0)
    assert pair.counter("inbound_vouched") == int(passes)
    assert pair.counter("inbound_stale") == int(generation is not None and not passes)
    assert generation is not None or pair.counter("inbound_unvouched") > 0


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


@pytest.mark.parametrize("host", [SERVER4, SERVER6])
def test_a_syn_whose_voucher_was_evicted_is_refused_and_never_plaintext(
    pair: DirectBed, host: str
) -> None:
    """It waits for a full accept queue meanwhile, and is sent again after a second."""
    pair.tables.put_verdict(pair.client_id, pair.server_id, BUSY_PORT, GENERATION)
    pair.open()
    with (
        pair.server.listen(host, BUSY_PORT) as busy,
        pair.client.dial((host, BUSY_PORT)),
        pair.client.socket(busy.family) as waiting,
    ):
        busy.listen(0)
        waiting.setblocking(False)
        assert waiting.connect_ex((host, BUSY_PORT)) == errno.EINPROGRESS
        with pair.map("vouched") as vouched:
            keys = list(vouched)
            assert len(keys) == 1
            vouched.delete(keys[0])
        busy.accept()[0].close()
        eventually(lambda: pair.counter("inbound_unvouched") > 0)
        assert waiting.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNREFUSED
    assert pair.counter("inbound_plaintext") == 0


@pytest.mark.parametrize("direct", [True, False])
def test_a_syn_in_the_name_of_a_captured_pod_is_never_plaintext(
    pair: DirectBed, direct: bool
) -> None:
    """The kernel may carry its connections, or may not."""
    pair.bed.node.set_direct("uid-client", direct)
    send_segment(pair.client, (CLIENT4, 40000), (SERVER4, PORT), SYN)
    eventually(lambda: pair.counter("inbound_unvouched") > 0)
    pair.bed.node.release("uid-client")  # from now on it is any client outside the mesh
    send_segment(pair.client, (CLIENT4, 40001), (SERVER4, PORT), SYN)
    eventually(lambda: pair.counter("inbound_plaintext") == 1)


@pytest.mark.parametrize("host", [SERVER4, SERVER6])
def test_what_a_ztunnel_sends_in_the_clear_arrives_as_plaintext(pair: DirectBed, host: str) -> None:
    """A pod that was captured a moment ago, or one behind a translated address."""
    with pair.bed.ztunnel.dial(pair.client, (host, PORT)) as dialled:
        accepted, peer = pair.at_server.plaintext.accept()
        accepted.close()
        assert peer[1] == dialled.getsockname()[1]
    assert pair.counter("inbound_passthrough") == pair.counter("passthrough_told") == 1
    assert pair.counter("inbound_unvouched") == 0


def test_what_a_ztunnel_sent_does_not_speak_for_the_pods_next_syn_from_that_port(
    pair: DirectBed,
) -> None:
    pair.open()
    with pair.bed.ztunnel.dial(pair.client, (SERVER4, PORT)) as dialled:
        pair.at_server.plaintext.accept()[0].close()
        name = dialled.getsockname()
    assert pair.used("passthrough") == 1
    with pair.client.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("0.0.0.0", name[1]))
        sock.connect((SERVER4, PORT))
        pair.app.accept()[0].close()
    assert pair.used("passthrough") == 0


def test_a_pod_outside_the_mesh_and_the_pod_itself_are_as_before(pair: DirectBed) -> None:
    stranger = pair.network.pod("stranger", "10.77.0.9", "fd77::9")
    for host in (SERVER4, SERVER6):
        with stranger.dial((host, PORT)), pair.at_server.plaintext.accept()[0]:
            pass
        with pair.server.dial((host, PORT)), pair.app.accept()[0]:
            pass
    assert pair.counter("inbound_unvouched") == pair.counter("passthrough_told") == 0


def test_after_a_takeover_the_new_version_knows_all_captured_pods(pair: DirectBed) -> None:
    pair.open()
    pair.bed.node.close()
    pair.bed.node = pair.bed.reopened(version="other")
    assert pair.used("locals") == 4
    send_segment(pair.client, (CLIENT4, 40000), (SERVER4, PORT), SYN)
    eventually(lambda: pair.counter("inbound_unvouched") > 0)


def test_strict_closes_no_direct_connection(pair: DirectBed) -> None:
    pair.open()
    pair.bed.node.set_plaintext("uid-server", PlaintextRules(True))
    pair.assert_direct()
    with pytest.raises(ConnectionRefusedError):
        pair.bed.ztunnel.dial(pair.client, (SERVER4, PORT))
