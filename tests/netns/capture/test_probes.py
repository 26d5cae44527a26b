"""A kubelet's probes under STRICT, by the cgroup of its sockets: let in, and nobody else."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest

from agent.datapath import cgroups, netns
from agent.datapath.entries import PlaintextRules
from agent.datapath.folder import versions
from tests.support.kernel.datapath import Bed, Listeners
from tests.support.kernel.netns import Network, Pod, Process, eventually

POD4, POD6, MAPPED = "10.77.0.2", "fd77::2", "::ffff:10.77.0.2"
OTHER4 = "10.77.0.3"
PROBED, UNDECLARED = 8080, 8081


@dataclass
class Host:
    """The kubelet's host: the kubelet in its cgroup, and another process beside it."""

    bed: Bed
    place: Pod
    kubelet: Process
    other: Process
    listeners: Listeners

    def probe(self, host: str, port: int = PROBED) -> socket.socket:
        return self.kubelet.dial(self.place, (host, port))

    def refused(self, dial: Callable[[], socket.socket]) -> bool:
        with pytest.raises(ConnectionRefusedError):
            dial()
        return True

    def counter(self, name: str) -> int:
        return self.bed.node.counters()[name]

    def vouched(self) -> int:
        return {use.name: use.used for use in self.bed.node.usage()}["vouched"]


def cookie_of(place: Pod) -> int:
    with place.inside():
        return netns.own_cookie()


@pytest.fixture
def app(pod: Pod) -> Iterator[socket.socket]:
    with pod.listen("::", PROBED, dual=True) as made:
        yield made


@pytest.fixture
def host(bed: Bed, pod: Pod, far: Pod) -> Iterator[Host]:
    folder = cgroups.create(bed.cgroup_root / f"{bed.ztunnel_cgroup.name}-kubelet")
    try:
        with Process() as kubelet, Process() as other:
            kubelet.join_cgroup(folder)
            bed.node.kubelet.attach(folder, cookie_of(far))
            listeners = bed.capture(pod, "uid-app")
            bed.node.set_plaintext("uid-app", PlaintextRules(True))
            bed.node.set_probes("uid-app", frozenset({PROBED}))
            yield Host(bed, far, kubelet, other, listeners)
    finally:
        cgroups.remove(folder)


@pytest.mark.parametrize("address", [POD4, POD6, MAPPED])
def test_a_probe_reaches_the_app_and_a_stranger_beside_the_kubelet_does_not(
    host: Host, app: socket.socket, address: str
) -> None:
    with host.probe(address) as dialled, app.accept()[0] as accepted:
        assert accepted.getpeername()[1] == dialled.getsockname()[1]
        dialled.sendall(b"GET")
        assert accepted.recv(8) == b"GET"
        assert host.vouched() == 0  # it has served
    assert host.refused(lambda: host.other.dial(host.place, (address, PROBED)))
    assert host.refused(lambda: host.probe(address, UNDECLARED))
    assert host.counter("inbound_probe") == 1
    assert host.counter("inbound_strict") > 0


def test_it_needs_no_ztunnel(host: Host, app: socket.socket) -> None:
    host.listeners.close()
    with host.probe(POD4):
        app.accept()[0].close()


def test_ports_change_while_the_pod_runs(host: Host, app: socket.socket, pod: Pod) -> None:
    host.bed.node.set_probes("uid-app", frozenset({UNDECLARED}))
    assert host.refused(lambda: host.probe(POD4))
    with pod.listen("0.0.0.0", UNDECLARED) as second, host.probe(POD4, UNDECLARED):
        second.accept()[0].close()
    host.bed.node.set_probes("uid-app", frozenset())
    assert host.refused(lambda: host.probe(POD4, UNDECLARED))


def test_each_pod_names_its_own_ports(host: Host, network: Network) -> None:
    second = network.pod("second", OTHER4)
    host.bed.capture(second, "uid-second")
    host.bed.node.set_plaintext("uid-second", PlaintextRules(True))
    with second.listen("0.0.0.0", PROBED) as listener:
        assert host.refused(lambda: host.probe(OTHER4))
        host.bed.node.set_probes("uid-second", frozenset({PROBED}))
        with host.probe(OTHER4):
            listener.accept()[0].close()


def test_the_kubelets_other_connections_are_plaintext_where_that_is_let_in(host: Host) -> None:
    """In k3s the API server is the same process, and calls webhooks in pods."""
    host.bed.node.set_plaintext("uid-app", PlaintextRules(False))
    with host.probe(POD4, UNDECLARED) as dialled:
        accepted, peer = host.listeners.plaintext.accept()
        accepted.close()
        assert peer[1] == dialled.getsockname()[1]
    assert host.counter("inbound_unvouched") == host.counter("inbound_stale") == 0


def test_a_probe_that_failed_leaves_nothing_for_the_next_socket_of_its_port(host: Host) -> None:
    """Nobody listens in the pod yet, as while it starts."""
    assert host.refused(lambda: host.probe(POD4))
    assert host.counter("probe_vouched") == host.counter("inbound_probe") == 1
    assert host.vouched() == 0


def test_a_syn_that_is_sent_again_passes_too(host: Host, pod: Pod) -> None:
    """The app's accept queue is full; after a second there is room."""
    with pod.listen("0.0.0.0", PROBED) as busy, pod.dial((POD4, PROBED)):
        busy.listen(0)
        with ThreadPoolExecutor(1) as background:
            probe = background.submit(host.probe, POD4)
            eventually(lambda: host.counter("inbound_probe") == 1, "its first SYN")
            busy.accept()[0].close()
            with probe.result(), busy.accept()[0]:
                assert host.counter("inbound_probe") > 1
    assert host.counter("probe_vouched") == 1


@pytest.mark.parametrize("captured", [True, False])
def test_a_process_of_its_cgroup_in_a_pod_is_no_kubelet(
    host: Host, app: socket.socket, network: Network, captured: bool
) -> None:
    """A child that enters the pod; or a container, where those have no cgroup of their own."""
    inside = network.pod("inside", "10.77.0.4")
    if captured:
        host.bed.capture(inside, "uid-inside")
        host.kubelet.dial(inside, (POD4, PROBED)).close()  # to that pod's ztunnel
        assert host.counter("captured_v4") == 1
    else:
        assert host.refused(lambda: host.kubelet.dial(inside, (POD4, PROBED)))
    assert host.counter("probe_vouched") == 0


def test_it_outlives_the_agent_and_the_next_version_takes_it_over(
    host: Host, app: socket.socket, pod: Pod
) -> None:
    node = host.bed.node
    target = node.kubelet.target()
    node.close()
    with host.probe(POD4):  # no agent runs
        app.accept()[0].close()
    host.bed.node = host.bed.reopened()
    assert host.bed.node.kubelet.target() == target
    with host.probe(POD4):
        app.accept()[0].close()
    host.bed.node.close()
    host.bed.node = host.bed.reopened(version="other")
    assert host.bed.node.kubelet.target() == target
    assert len(versions(host.bed.pin_root)) == 1
    with host.probe(POD4):
        app.accept()[0].close()
    host.bed.capture(pod, "uid-app", host.listeners)  # as after a restart: nobody has spoken yet
    with host.probe(POD4):
        app.accept()[0].close()


def test_the_kubelets_next_cgroup_takes_the_place_of_the_one_before(
    host: Host, app: socket.socket
) -> None:
    folder = cgroups.create(host.bed.cgroup_root / f"{host.bed.ztunnel_cgroup.name}-next")
    try:
        with Process() as kubelet:
            kubelet.join_cgroup(folder)
            host.bed.node.kubelet.attach(folder, cookie_of(host.place))
            with kubelet.dial(host.place, (POD4, PROBED)):
                app.accept()[0].close()
            assert host.refused(lambda: host.probe(POD4))
            host.bed.node.kubelet.detach()
            assert host.refused(lambda: kubelet.dial(host.place, (POD4, PROBED)))
    finally:
        cgroups.remove(folder)
    assert host.bed.node.kubelet.target() == 0
    host.bed.node.close()
    host.bed.node = host.bed.reopened()
    assert host.bed.node.kubelet.target() == 0


def test_a_cgroup_that_is_gone_holds_nothing(host: Host) -> None:
    folder = cgroups.create(host.bed.cgroup_root / f"{host.bed.ztunnel_cgroup.name}-gone")
    host.bed.node.kubelet.attach(folder, cookie_of(host.place))
    cgroups.remove(folder)
    eventually(lambda: host.bed.node.kubelet.target() == 0, "the link has no target")
    host.bed.node.close()
    host.bed.node = host.bed.reopened()
    assert host.bed.node.kubelet.target() == 0


def test_a_pod_that_was_released_names_nothing(host: Host, app: socket.socket, pod: Pod) -> None:
    host.bed.node.release("uid-app")
    with host.other.dial(host.place, (POD4, PROBED)):  # outside the mesh now
        app.accept()[0].close()
    assert host.counter("probe_vouched") == 0
