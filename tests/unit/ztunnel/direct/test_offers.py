"""Offers to the kernel half: made once, signed with the right number, taken back in time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from control.model.policy import Action, Policy, PolicyScope
from control.model.workload import GatewayAddress, NamespacedHostname, WorkloadStatus
from tests.support.engine.direct_rig import CLIENT, FAR, SERVER, SERVICE, WEB, Rig, kinds
from tests.support.engine.meshes import pod, service
from ztunnel.direct.offers import AGAIN_S, REFRESHED_PER_TURN_MAX, Offers
from ztunnel.direct.verdicts import Place
from ztunnel.mesh.entries import Entry, Op

VIP = "10.1.0.1:80"
POD = "10.0.0.2:8080"
VERDICT = {
    "kind": "verdict",
    "generation": 7,
    "source": "uid-client",
    "destination": "uid-server",
    "port": 8080,
}
ONE_OF_TWO = {
    "kind": "service",
    "source": "uid-client",
    "vip": "10.1.0.1",
    "port": 80,
    "total": 2,
    "slots": [{"weight": 1, "destination": "uid-server", "address": "10.0.0.2", "port": 8080}],
}
FORGET = {**ONE_OF_TWO, "total": 0, "slots": []}
DENY_ALL = Policy("no", "shop", PolicyScope.NAMESPACE, Action.ALLOW)


@pytest.fixture
def rig() -> Iterator[Rig]:
    made = Rig()
    yield made
    made.close()


def test_the_first_connection_teaches_and_the_next_are_silent(rig: Rig) -> None:
    assert rig.connect(POD, tries=50) == [VERDICT]


def test_both_families_are_one_verdict(rig: Rig) -> None:
    assert rig.connect("[fd00::2]:8080") == [VERDICT]
    assert rig.connect(POD) == []
    assert rig.connect("10.0.0.2:9090") == [{**VERDICT, "port": 9090}]


def test_a_push_of_other_nodes_pods_asks_nothing_anew(rig: Rig) -> None:
    rig.connect(POD)
    rig.connect(VIP, tries=20)
    rig.said()
    for number in range(50):
        rig.change(pod(f"more{number}", f"10.0.8.{number}", node="n3"))
        assert rig.connect(POD) == rig.connect(VIP) == []


def test_a_pair_that_stays_in_the_tunnel_is_told_again(rig: Rig) -> None:
    rig.connect(POD)
    rig.time.now_s += AGAIN_S + 0.1
    rig.turns()
    assert rig.connect(POD) == [VERDICT]


def test_nothing_is_signed_without_a_number() -> None:
    rig = Rig(generation=None)
    assert rig.connect(POD, tries=3) == []
    rig.path.offers.on_generation(9)
    assert rig.connect(POD) == [{**VERDICT, "generation": 9}]
    rig.close()


def test_a_new_number_asks_again(rig: Rig) -> None:
    rig.connect(POD)
    rig.path.offers.on_generation(8)
    assert rig.connect(POD) == [{**VERDICT, "generation": 8}]


def test_a_denied_pair_is_never_offered(rig: Rig) -> None:
    rig.change(DENY_ALL)
    assert rig.connect(POD, tries=3) == []
    rig.change(Entry(Op.REMOVE_POLICY, DENY_ALL.key))
    rig.path.offers.on_generation(8)
    assert rig.connect(POD) == [{**VERDICT, "generation": 8}]


def test_between_a_change_and_its_number_the_old_one_is_used(rig: Rig) -> None:
    """The agent takes no old number any more, so nothing decided here counts."""
    rig.change(DENY_ALL)
    rig.change(Entry(Op.REMOVE_POLICY, DENY_ALL.key))
    (line,) = rig.connect(POD)
    assert line["generation"] == 7


def test_a_pod_of_another_node_is_none_of_our_business(rig: Rig) -> None:
    assert rig.connect("10.0.9.9:8080") == []


def test_a_pod_that_this_worker_does_not_serve_is_not_offered(rig: Rig) -> None:
    del rig.engine.pods["uid-server"]
    rig.path.offers.on_pods()
    assert rig.connect(POD) == []


def test_a_service_teaches_its_share(rig: Rig) -> None:
    assert ONE_OF_TWO in rig.connect(VIP, tries=20)
    v6 = [line for line in rig.connect("[fd01::1]:80", tries=20) if line["kind"] == "service"]
    assert v6[0]["vip"] == "fd01::1"
    assert v6[0]["slots"][0]["address"] == "fd00::2"
    assert rig.path.offers.learned == 2


def test_a_share_follows_the_mesh(rig: Rig) -> None:
    rig.connect(VIP, tries=20)
    rig.said()
    rig.change(replace(FAR, status=WorkloadStatus.UNHEALTHY))
    rig.turns()
    assert rig.said() == [{**ONE_OF_TWO, "total": 1}]
    rig.change(replace(SERVER, status=WorkloadStatus.UNHEALTHY))
    rig.turns()
    assert rig.said() == [FORGET]
    assert rig.path.offers.learned == 0


def test_a_change_that_changes_nothing_is_not_told(rig: Rig) -> None:
    rig.connect(VIP, tries=20)
    rig.said()
    rig.change(pod("elsewhere", "10.0.7.7", node="n3"), FAR, SERVICE)
    rig.turns()
    assert rig.said() == []


def test_a_pod_that_went_ends_its_share(rig: Rig) -> None:
    rig.connect(VIP, tries=20)
    rig.said()
    del rig.engine.pods["uid-server"]
    rig.path.offers.on_pods()
    rig.turns()
    assert rig.said() == [FORGET]


def test_a_new_agent_is_told_everything(rig: Rig) -> None:
    rig.connect(VIP, tries=20)
    rig.said()
    rig.hear(kind="hello", version=1, lease_s=2)
    rig.turns()
    assert rig.said() == [ONE_OF_TWO]
    assert VERDICT in rig.connect(POD)


def test_a_waypoint_is_heeded_before_anything_is_signed_anew(rig: Rig) -> None:
    """The kernel has a share for the service; its pods may be allowed again only once it is gone,
    or connections would pass by the waypoint."""
    many = [service(f"s{number}", f"10.2.0.{number}") for number in range(1, 100)]
    web = {each.key: () for each in many} | WEB
    rig.change(replace(SERVER, services=web), replace(FAR, services=web), *many)
    for number in range(1, 100):
        rig.connect(f"10.2.0.{number}:80", tries=8)
    rig.connect(VIP, tries=20)
    assert rig.path.offers.learned == 100 > REFRESHED_PER_TURN_MAX
    rig.said()
    gate = GatewayAddress(NamespacedHostname("shop", "gate"), 15008)
    rig.change(replace(SERVICE, waypoint=gate))
    rig.path.offers.on_generation(8)
    assert rig.connect(POD) == []
    rig.turns(1)
    assert rig.connect(POD) == []
    rig.turns(5)
    assert rig.said() == [FORGET]
    assert rig.connect(POD) == [{**VERDICT, "generation": 8}]


def test_a_push_in_full_flight_ends_in_the_right_share(rig: Rig) -> None:
    rig.connect(VIP, tries=20)
    rig.said()
    for number in range(20):
        rig.change(pod(f"more{number}", f"10.0.8.{number}", node="n3", services=WEB))
        if number % 3 == 0:
            rig.turns(1)
    rig.turns()
    assert rig.said()[-1]["total"] == 22


def test_tables_are_bounded(rig: Rig) -> None:
    offers = Offers(rig.engine, Place("n1", "cluster.local"), rig.tell, recent_max=3, learned_max=2)
    rig.path.offers = offers
    offers.on_generation(7)
    more = [service(f"s{number}", f"10.2.0.{number}") for number in range(1, 6)]
    web = {each.key: () for each in more}
    rig.change(replace(SERVER, services=web), *more)
    for number in range(1, 6):
        rig.connect(f"10.2.0.{number}:80")
    assert rig.path.offers.learned == 2
    assert len(rig.path.offers._recent) <= 3
    forgotten = [
        line["vip"] for line in rig.lines if line["kind"] == "service" and not line["slots"]
    ]
    assert forgotten == ["10.2.0.1", "10.2.0.2", "10.2.0.3"]


def test_what_cannot_be_kept_up_to_date_is_not_offered(rig: Rig) -> None:
    rig.connect(VIP, tries=20)
    rig.said()
    rig.path.offers.on_bug()
    assert rig.said() == [FORGET]
    assert rig.connect(POD) == []


def test_a_client_that_changes_hands_has_its_own_share(rig: Rig) -> None:
    rig.connect(VIP, tries=20)
    rig.said()
    rig.change(replace(CLIENT, network="far"))
    rig.turns()
    assert kinds(rig.said()) == ["service"]
    assert rig.path.offers.learned == 0
