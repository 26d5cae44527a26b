"""The dump: Istio's field names, everything that is known, and no key."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from control.model.address import parse_address
from control.model.policy import (
    Action,
    Clause,
    Match,
    Policy,
    PolicyScope,
    Rule,
    ServiceAccountMatch,
    StringMatch,
    StringMatchKind,
)
from control.model.workload import (
    ApplicationTunnel,
    BalancingMode,
    GatewayAddress,
    LoadBalancing,
    NamespacedHostname,
    OuterAddress,
    Scope,
    WorkloadStatus,
)
from tests.support.clock import FakeClock
from tests.support.engine.meshes import key, mesh, pod, service, spiffe, vip
from tests.unit.ztunnel.identity.certs_rig import NOW, Authority
from ztunnel.identity.csr import check_chain, make_key
from ztunnel.supervisor import dump
from ztunnel.supervisor.direct import DirectHub
from ztunnel.supervisor.workers import Workers

WAYPOINT = GatewayAddress(NamespacedHostname("shop", "gate"), 15008)
WEB = pod("web", "10.0.0.2", "fd00::2", services={key("web"): ()}, node="n1")
SERVICE = service("web", "10.1.0.1", "10.2.0.0/16")


def test_a_workload() -> None:
    (shown,) = dump.workloads(mesh(WEB))
    assert shown["uid"] == "Kubernetes//Pod/shop/web"
    assert shown["workloadIps"] == ["10.0.0.2", "fd00::2"]
    assert (shown["protocol"], shown["networkMode"], shown["status"]) == (
        "HBONE",
        "Standard",
        "Healthy",
    )
    assert shown["services"] == [key("web")]
    assert not {"waypoint", "networkGateway", "applicationTunnel"} & shown.keys()
    odd = replace(
        WEB,
        waypoint=WAYPOINT,
        network_gateway=GatewayAddress(vip("10.9.0.1", "far"), 15008),
        application_tunnel=ApplicationTunnel(True, 80),
    )
    shown = dump.workload(odd)
    assert shown["waypoint"] == {"destination": "shop/gate", "hboneMtlsPort": 15008}
    assert shown["networkGateway"] == {"destination": "far/10.9.0.1", "hboneMtlsPort": 15008}
    assert shown["applicationTunnel"] == {"protocol": "PROXY", "port": 80}


def test_a_service_has_its_endpoints() -> None:
    ill = replace(WEB, uid="Kubernetes//Pod/shop/ill", name="ill", status=WorkloadStatus.UNHEALTHY)
    (shown,) = dump.services(mesh(WEB, replace(ill, addresses=()), SERVICE))
    assert shown["vips"] == ["/10.1.0.1", "/10.2.0.0/16"]
    assert shown["ports"] == {"80": 8080}
    healthy = {uid: each["healthy"] for uid, each in shown["endpoints"].items()}
    assert healthy == {WEB.uid: True, ill.uid: False}
    assert "loadBalancer" not in shown
    assert "outerAddresses" not in shown
    outer = OuterAddress("", parse_address("192.0.2.1"), (80, 443))
    more = dump.service(replace(SERVICE, outer_addresses=(outer,), affinity_s=60), ())
    assert (more["outerAddresses"], more["affinitySeconds"]) == ({"/192.0.2.1": [80, 443]}, 60)
    near = LoadBalancing((Scope.NETWORK, Scope.ZONE), BalancingMode.FAILOVER)
    shown = dump.service(replace(SERVICE, load_balancing=near), ())
    assert shown["loadBalancer"]["routingPreferences"] == ["NETWORK", "ZONE"]
    assert shown["loadBalancer"]["mode"] == "Failover"


def test_a_policy_shows_what_it_matches_and_no_more() -> None:
    match = Match(
        principals=(
            StringMatch(StringMatchKind.EXACT, "td/ns/a/sa/b"),
            StringMatch(StringMatchKind.PRESENCE),
        ),
        not_service_accounts=(ServiceAccountMatch("shop", "web"),),
        destination_ports=(80,),
    )
    value = Policy(
        "p", "shop", PolicyScope.WORKLOAD_SELECTOR, Action.DENY, (Rule((Clause((match,)),)),)
    )
    (shown,) = dump.policies(mesh(value))
    assert (shown["scope"], shown["action"], shown["dryRun"]) == (
        "WorkloadSelector",
        "Deny",
        False,
    )
    assert shown["rules"] == [
        [
            [
                {
                    "principals": [{"Exact": "td/ns/a/sa/b"}, {"Presence": []}],
                    "notServiceAccounts": [{"namespace": "shop", "serviceAccount": "web"}],
                    "destinationPorts": [80],
                }
            ]
        ]
    ]


def test_a_certificate_shows_its_life_and_never_its_key() -> None:
    authority, made, who = Authority(), make_key(), spiffe("web")
    issued = check_chain(who, made, authority.chain(made.public_key(), str(who)), NOW)
    shown = dump.certificate(who, issued, "")
    assert shown["state"] == "Available"
    (leaf,) = shown["certChain"]
    assert leaf["serialNumber"] == str(issued.serial)
    assert leaf["expirationTime"] == (NOW + timedelta(days=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    assert shown["receivedAt"] == NOW.strftime("%Y-%m-%dT%H:%M:%SZ")
    assert len(shown["rootCerts"]) == 1
    assert issued.key_pem.splitlines()[1] not in str(shown)
    assert "lastError" not in shown
    assert dump.certificate(who, issued, "signing_failed")["lastError"] == "signing_failed"


@pytest.mark.parametrize(("failure", "state"), [("", "Initializing"), ("no", "Unavailable: no")])
def test_an_identity_without_a_certificate_says_why(failure: str, state: str) -> None:
    shown = dump.certificate(spiffe("web"), None, failure)
    assert (shown["state"], shown["certChain"]) == (state, [])


def test_a_direct_path_that_is_off() -> None:
    class Nobody:
        pass

    workers = Workers(1, {}, Nobody(), Nobody(), FakeClock())  # type: ignore[arg-type]  # unused
    assert dump.direct(DirectHub(workers), {}) == {"enabled": False}
