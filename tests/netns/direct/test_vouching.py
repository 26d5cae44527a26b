"""SYNs of direct connections: vouched for, stale, or of strangers."""

from __future__ import annotations

import socket

import pytest

from agent.datapath.entries import address_value
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
    DirectBed,
    now_ns,
)
from tests.support.kernel.netns import eventually
from tests.support.kernel.raw_tcp import SYN, send_segment


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
