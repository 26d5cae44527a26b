"""Plaintext connections to a pod: policy is asked first, and asked again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from control.model.address import Endpoint
from tests.support.certificates import Authority, make_authority
from tests.support.engine.inbound_rig import APP, CLIENT, InboundRig, is_closed, only
from tests.support.engine.meshes import pod
from tests.support.engine.rows import every_row
from ztunnel.connections.newcomers import WAITING_MAX, WORKLOAD_S
from ztunnel.connections.pod import Pod
from ztunnel.mesh.entries import Entry, Op
from ztunnel.refusals import Flag
from ztunnel.transport.dial import DialError
from ztunnel.transport.ends import RelayEnd


@pytest.fixture(scope="module")
def authority() -> Authority:
    return make_authority()


@pytest.fixture
def rig(authority: Authority) -> Iterator[InboundRig]:
    made = InboundRig(authority)
    yield made
    made.close()


def test_an_allowed_connection_is_dialled_with_its_permit_and_relayed(rig: InboundRig) -> None:
    client = rig.plaintext()
    (permit,) = rig.dialer.permits
    assert (permit.connection.destination_ip, permit.connection.destination_port) == (
        APP.address,
        APP.port,
    )
    assert permit.connection.source is None
    assert rig.dialer.clients == [CLIENT]
    app = rig.dialer.answer()
    client.send(b"hello")
    rig.settle()
    assert app.recv(10) == b"hello"
    assert rig.engine.connections == 1
    for end in (client, app):
        end.close()
    rig.settle()
    assert rig.engine.connections == 0


def test_a_caller_without_identity_is_refused_where_a_policy_wants_one(rig: InboundRig) -> None:
    rig.change(only("client"))
    assert is_closed(rig.plaintext())
    assert rig.dialer.permits == []
    assert rig.refusals == {"policy": 1}
    assert rig.engine.connections == 0


def test_a_pod_that_the_control_plane_does_not_know_gets_no_connection(rig: InboundRig) -> None:
    client = rig.plaintext(at=rig.stranger)
    assert not is_closed(client)
    rig.time.now_s += WORKLOAD_S
    rig.settle()
    assert is_closed(client)
    assert rig.refusals == {"unknown_local_workload": 1}
    assert rig.dialer.permits == []
    assert rig.engine.connections == 0


def test_a_pod_that_has_just_started_is_dialled_once_the_control_plane_told_of_it(
    rig: InboundRig,
) -> None:
    clients = [rig.plaintext(at=rig.stranger) for _ in range(WAITING_MAX)]
    assert is_closed(rig.plaintext(at=rig.stranger)), "so many wait for a pod, and no more"
    assert rig.refusals == {"unknown_local_workload": 1}
    assert len(rig.engine.newcomers) == 0, "they take no place of the pod's own connections"
    rig.change(pod("stranger", "10.0.0.2"))
    rig.engine.workloads_came()
    rig.settle()
    assert len(rig.dialer.permits) == len(clients)
    assert not any(is_closed(each) for each in clients)
    for _ in clients:
        rig.dialer.fail(DialError.REFUSED)
    rig.settle()


def test_what_waits_for_a_pod_ends_with_it(rig: InboundRig) -> None:
    late = rig.engine.pods["late"] = Pod("late", "late", "shop", "late", -1)
    client = rig.plaintext(at=late)
    rig.engine.remove_pod("late")
    rig.settle()
    assert is_closed(client)
    assert rig.engine.connections == 0


def test_a_connection_to_our_own_port_would_come_back_for_ever(rig: InboundRig) -> None:
    rig.pod.own_ports.add(APP.port)
    assert is_closed(rig.plaintext())
    assert rig.refusals == {"recursion": 1}
    assert is_closed(rig.plaintext(Endpoint(APP.address, 15008)))
    assert rig.refusals == {"recursion": 2}


def test_an_app_that_is_not_there_resets_its_client(rig: InboundRig) -> None:
    client = rig.plaintext()
    rig.dialer.fail(DialError.REFUSED)
    rig.settle()
    assert is_closed(client)
    assert rig.refusals == {"connect_failed": 1}
    assert rig.engine.connections == 0


def test_a_connection_ends_with_its_pod_while_its_app_is_dialled(rig: InboundRig) -> None:
    client = rig.plaintext()
    rig.engine.remove_pod("p")
    rig.settle()
    assert rig.dialer.abandoned == 1
    assert is_closed(client)
    assert rig.refusals == {"aborted": 1}


def test_a_policy_that_no_longer_allows_it_cuts_an_open_connection(rig: InboundRig) -> None:
    client = rig.plaintext()
    app = rig.dialer.answer()
    rig.recheck()
    assert not is_closed(client)
    rig.change(only("client"))
    rig.recheck()
    assert is_closed(client)
    assert is_closed(app)
    assert rig.refusals == {"policy_changed": 1}
    flags = [
        labels["response_flags"]
        for name, labels, _ in every_row(rig.engine.counters)
        if name == "istio_tcp_connections_closed_total"
    ]
    assert flags == [Flag.DENY.value]


def test_a_workload_that_is_being_deleted_keeps_its_connections(rig: InboundRig) -> None:
    client = rig.plaintext()
    app = rig.dialer.answer()
    workload = rig.pod.workload(rig.engine.state)
    assert workload is not None
    rig.change(Entry(Op.REMOVE_ADDRESS, workload.uid), only("client"))
    assert rig.pod.workload(rig.engine.state) is None
    rig.recheck()
    assert not is_closed(client)
    assert not is_closed(app)


def test_a_dry_run_refusal_is_counted_and_lets_in(rig: InboundRig) -> None:
    rig.change(replace(only("client"), dry_run=True))
    rig.plaintext()
    assert len(rig.dialer.permits) == 1
    assert rig.engine.counters.engine["would_deny"] == 1
    assert rig.refusals == {}


def test_a_bug_ends_one_connection(rig: InboundRig) -> None:
    client = rig.plaintext()
    (connection,) = rig.pod.inbound
    connection.on_bug()
    rig.settle()
    assert is_closed(client)
    assert rig.engine.connections == 0
    connection.abort(RelayEnd.DRAINED)  # once more changes nothing
    assert rig.engine.connections == 0
