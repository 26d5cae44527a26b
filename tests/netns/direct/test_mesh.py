"""Two pods of one node on the whole mesh: direct connections, their records, and
what ends it. Both families, pod addresses and service addresses."""

from __future__ import annotations

import json
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from agent.lab import changes
from tests.support.lab.mesh_bed import FAMILIES, PORT, Bed, Reply, is_closed, soon, speak
from tests.support.lab.mesh_direct import (
    chosen,
    connections,
    deny,
    direct_mesh,
    entry_of,
    goes_direct,
    lines_about,
    metrics,
    vips,
)

LOAD_S = 3.0
DRAWS = 120


@pytest.fixture(scope="module")
def bed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    with direct_mesh(tmp_path_factory.mktemp("direct")) as made:
        yield made


STRICT = json.dumps(
    {
        "apiVersion": "security.istio.io/v1beta1",
        "kind": "PeerAuthentication",
        "metadata": {"name": "default", "namespace": "mesh"},
        "spec": {"mtls": {"mode": "STRICT"}},
    }
)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("by", ["pod", "service"])
def test_after_the_first_connection_the_kernel_connects_by_itself(
    bed: Bed, family: int, by: str
) -> None:
    if by == "pod":
        address, port = bed.address("near", family), PORT
    else:
        address, port = vips(bed, "nearby")[family], 80
    before = chosen(bed)
    with goes_direct(bed, address, port) as sock:
        entry = entry_of(bed, sock)
        assert entry["protocol"] == "TCP"
        assert entry["sourceIdentity"] == "spiffe://cluster.local/ns/mesh/sa/client"
        assert entry["destinationIdentity"] == "spiffe://cluster.local/ns/mesh/sa/server"
        assert entry["actualDst"].endswith(":8080")
        assert entry["service"] == ("" if by == "pod" else "nearby.mesh.svc.cluster.local")
        into = [each for each in connections(bed, "near") if each["src"] == entry["src"]]
        assert [each["path"] for each in into] == ["direct"]
        source_text = entry["src"]
    assert chosen(bed) > before
    soon(lambda: lines_about(bed, source_text) == 2, "a line of the access log for each side")
    for line in re.findall(rf".*{re.escape(source_text)}.*", bed.log(f"ztunnel-{bed.here}")):
        assert "path=direct" in line
        assert "srtt=" in line
        assert "dst.workload=near" in line


def test_counters_and_bytes_are_those_of_a_tunnel(bed: Bed) -> None:
    labels = {"path": "direct", "destination_workload": "near", "source_workload": "client"}
    address = bed.address("near", 4)
    goes_direct(bed, address).close()
    names = ("opened_total", "closed_total")
    before = [metrics(bed, f"istio_tcp_connections_{name}", **labels) for name in names]
    moved = metrics(bed, "istio_tcp_received_bytes_total", **labels, reporter="source")
    for _ in range(5):
        with goes_direct(bed, address) as sock:
            speak(sock, "x" * 1000)

    def counted() -> bool:
        bytes_now = metrics(bed, "istio_tcp_received_bytes_total", **labels, reporter="source")
        numbers = [metrics(bed, f"istio_tcp_connections_{name}", **labels) for name in names]
        return bytes_now >= moved + 5000 and all(
            now >= then + 10 for now, then in zip(numbers, before, strict=True)
        )

    soon(counted, "five more on either side")
    secured = {**labels, "connection_security_policy": "mutual_tls"}
    assert metrics(bed, "istio_tcp_connections_opened_total", **secured) == 0


def test_a_service_of_two_nodes_keeps_its_shares(bed: Bed) -> None:
    """Half of the connections go to the pod here, direct, and half through the tunnel."""
    address = vips(bed, "both")[4]
    goes_direct(bed, address, 80).close()
    name = "istio_tcp_connections_opened_total"
    own = {"reporter": "source", "destination_service_name": "both", "source_workload": "client"}

    def numbers() -> tuple[float, float, float]:
        here = metrics(bed, name, **own, destination_workload="near")
        there = metrics(bed, name, **own, destination_workload="server")
        return here, there, metrics(bed, name, **own, path="direct")

    before = numbers()
    for _ in range(DRAWS):
        assert bed.ask("client", address, 80) is Reply.ANSWERED

    def counted() -> bool:
        now = numbers()
        return now[0] + now[1] - before[0] - before[1] == DRAWS

    soon(counted, "every connection is counted")
    here, there, direct = (now - then for now, then in zip(numbers(), before, strict=True))
    assert DRAWS * 0.3 < here < DRAWS * 0.7, (here, there)
    assert direct >= here * 0.8, (here, direct)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_denied_pair_never_goes_direct(bed: Bed, family: int) -> None:
    addresses = [(bed.address("near", family), PORT), (vips(bed, "nearby")[family], 80)]
    with bed.policy(deny("other")):
        soon(lambda: bed.ask("other", *addresses[0]) is not Reply.ANSWERED, "the policy is there")
        before = chosen(bed)
        for _ in range(25):
            for address, port in addresses:
                assert bed.ask("other", address, port) is not Reply.ANSWERED
        assert chosen(bed) == before
        goes_direct(bed, *addresses[0]).close()  # others may


@pytest.mark.parametrize("family", FAMILIES)
def test_a_policy_ends_live_direct_connections_and_lets_no_more_through(
    bed: Bed, family: int
) -> None:
    address = bed.address("near", family)
    with (
        goes_direct(bed, address, pod="other") as denied,
        goes_direct(bed, address, pod="client") as allowed,
    ):
        name = denied.getsockname()
        with bed.policy(deny("other")):
            assert is_closed(denied)
            assert bed.ask("other", address) is not Reply.ANSWERED
            assert speak(allowed)
        port = f"{name[1]}"
        soon(lambda: f":{port} " in closed_by_policy(bed), "the log says who was cut, and why")
    soon(lambda: bed.ask("other", address) is Reply.ANSWERED, "let in again")
    goes_direct(bed, address, pod="other").close()


def closed_by_policy(bed: Bed) -> str:
    lines = bed.log(f"ztunnel-{bed.here}").splitlines()
    return "\n".join(line for line in lines if "closed due to policy change" in line)


def test_a_prober_at_full_speed_finds_no_gap(bed: Bed) -> None:
    """From the moment that a worker enforces the policy not one connection is answered."""
    address = bed.address("near", 4)
    goes_direct(bed, address, pod="other").close()
    answers: list[tuple[float, Reply]] = []
    stop = threading.Event()

    def probe() -> None:
        while not stop.is_set():
            started_s = time.monotonic()
            answers.append((started_s, bed.ask("other", address)))

    thread = threading.Thread(target=probe)
    thread.start()
    try:
        for _ in range(3):
            with bed.policy(deny("other")):
                # The thread adds to the list, and the loop empties it: one look at its end.
                soon(lambda: any(a is not Reply.ANSWERED for _, a in answers[-1:]), "the policy")
                # The other worker may be a moment behind: both have it when the dump does.
                time.sleep(0.2)
                quiet_s = time.monotonic()
                time.sleep(LOAD_S / 3)
                until_s = time.monotonic()
            late = [a for s, a in answers if quiet_s <= s <= until_s and a is Reply.ANSWERED]
            assert late == []
            soon(lambda: answers[-1][1] is Reply.ANSWERED, "let in again")
    finally:
        stop.set()
        thread.join()
    assert len(answers) > 50


def test_strict_keeps_strangers_out_and_neighbours_direct(bed: Bed) -> None:
    address = bed.address("near", 4)
    with bed.policy(STRICT):
        soon(lambda: bed.ask("stranger", address) is not Reply.ANSWERED, "STRICT is there")
        goes_direct(bed, address).close()
        assert bed.ask("stranger", address) is not Reply.ANSWERED


def allowed(bed: Bed) -> list[bool]:
    """Pods of the mesh on this node that may be connected directly."""
    pods = bed.agent(bed.here)["pods"]
    return [each["direct"] for each in pods if each["namespace"] == "mesh"]


def test_a_namespace_may_keep_to_the_tunnel(bed: Bed) -> None:
    address = bed.address("near", 4)
    goes_direct(bed, address).close()
    try:
        changes.label(bed.lab, "Namespace", "", "mesh", ["tulle.io/path=tunnel"])

        soon(lambda: not any(allowed(bed)), "the agent knows")
        for _ in range(10):
            with bed.dial("client", address) as sock:
                assert speak(sock)
                assert entry_of(bed, sock)["path"] == "hbone"
    finally:
        changes.label(bed.lab, "Namespace", "", "mesh", ["tulle.io/path-"])
    goes_direct(bed, address).close()


def answered(bed: Bed, address: str) -> bool:
    try:
        return bed.ask("client", address, timeout_s=1.0) is Reply.ANSWERED
    except TimeoutError:
        return False


@pytest.mark.parametrize("how", [changes.kill, changes.stop], ids=["killed", "drained"])
def test_the_kernels_connections_outlive_the_ztunnel(
    bed: Bed, how: Callable[[Any, str, str | None], list[str]]
) -> None:
    address = bed.address("near", 4)
    with goes_direct(bed, address) as sock:
        how(bed.lab, "ztunnel", bed.here)
        assert speak(sock)
        soon(lambda: not answered(bed, address), "nothing new goes anywhere")
        assert speak(sock)
        changes.restart(bed.lab, "ztunnel", bed.here)
        soon(lambda: bed.reach("client", "near") is Reply.ANSWERED, "the mesh is back")
        assert speak(sock)
        assert entry_of(bed, sock)["path"] == "direct", "told again"
    goes_direct(bed, address).close()


def test_without_the_agent_policy_still_comes_and_nothing_passes_by_it(bed: Bed) -> None:
    """Its lease runs out first; what it left open it tells again when it is back."""
    address = bed.address("near", 4)
    with goes_direct(bed, address) as kept, goes_direct(bed, address, pod="other") as denied:
        changes.kill(bed.lab, "agent", bed.here)
        try:
            with bed.policy(deny("other")):
                soon(lambda: bed.ask("other", address) is not Reply.ANSWERED, "the policy is there")
                for _ in range(20):
                    assert bed.ask("other", address) is not Reply.ANSWERED
                with bed.dial("client", address) as sock:
                    assert speak(sock)
                    assert entry_of(bed, sock)["path"] == "hbone", "the lease is over"
                changes.restart(bed.lab, "agent", bed.here)
                soon(lambda: bed.ztunnel(bed.here)["direct"]["connected"], "the agent is back")
                assert is_closed(denied), "cut as soon as somebody can"
                assert bed.ask("other", address) is not Reply.ANSWERED
        finally:
            changes.restart(bed.lab, "agent", bed.here)
        assert speak(kept)
        soon(lambda: entry_of(bed, kept)["path"] == "direct", "still known")
    goes_direct(bed, address).close()


def test_a_killed_worker_leaves_them_and_the_next_one_knows_them(bed: Bed) -> None:
    address = bed.address("near", 4)
    socks = [goes_direct(bed, address) for _ in range(4)]
    old = set(bed.workers(bed.here))
    for pid in old:
        os.kill(pid, signal.SIGKILL)
    soon(lambda: len(set(bed.workers(bed.here)) - old) == 2, "new workers")
    for sock in socks:
        assert speak(sock)
        assert entry_of(bed, sock)["path"] == "direct"
        sock.close()
