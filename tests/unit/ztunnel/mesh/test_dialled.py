"""The service in the telemetry of a destination: said, verified, or known without a word."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control.model.workload import Port, Visibility
from tests.support.engine.meshes import key, mesh, pod, service
from ztunnel.mesh.dialled import service_dialled

HOST = "{}.shop.svc.cluster.local".format
AAA = service("aaa", "10.1.0.1")  # 80 to 8080
ZZZ = service("zzz", "10.1.0.2", ports=(Port(80, 8080), Port(81, 9090)))
OWN = service("own", "10.1.0.3", ports=(Port(80, 0),))  # a named port: each pod has its own
NOT_OURS = service("elsewhere", "10.1.0.4")
SECRET = service("secret", "10.1.0.5", visibility=Visibility.NAMESPACE)
WEB = pod(
    "web",
    "10.0.0.2",
    services={
        key("aaa"): (),
        key("zzz"): (),
        key("own"): (Port(80, 7070),),
        key("secret"): (),
        key("gone"): (),
    },
)
STATE = mesh(WEB, AAA, ZZZ, OWN, NOT_OURS, SECRET)


@pytest.mark.parametrize(
    ("port", "said", "namespace", "expected"),
    [
        (8080, HOST("aaa"), "shop", "aaa"),
        (8080, HOST("zzz"), "shop", "zzz"),
        (8080, HOST("ZZZ"), "shop", "zzz"),
        (9090, HOST("zzz"), "other", "zzz"),
        (7070, HOST("own"), "shop", "own"),
        # Lies, and what is no longer true.
        (9090, HOST("aaa"), "shop", None),  # it does not lead there
        (80, HOST("aaa"), "shop", None),  # nor is this its port of the pod
        (8080, HOST("elsewhere"), "shop", None),  # this is no endpoint of it
        (8080, HOST("gone"), "shop", None),
        (8080, HOST("secret"), "other", None),  # it cannot have dialled that
        (8080, HOST("secret"), "shop", "secret"),
        (8080, "x" * 10_000, "shop", None),
        # The pod itself was dialled.
        (9090, "", "shop", None),
        # Nobody says anything: only what can be no other.
        (8080, None, "shop", None),
        (9090, None, "shop", "zzz"),
        (7070, None, "shop", "own"),
        (1, None, "shop", None),
    ],
)
def test_the_service_in_the_log(
    port: int, said: str | None, namespace: str, expected: str | None
) -> None:
    found = service_dialled(STATE, WEB, port, said, namespace)
    assert (found and found.name) == expected


@given(st.text(), st.integers(1, 65535))
def test_a_liar_invents_no_value(said: str, port: int) -> None:
    found = service_dialled(STATE, WEB, port, said, "shop")
    assert found is None or found.key in WEB.services


def test_a_service_of_another_namespace_does_not_hide_the_pods_own() -> None:
    own, stranger = service("own"), service("stranger", namespace="other")
    both = pod("both", "10.0.0.8", services={own.key: (), stranger.key: ()})
    state = mesh(both, own, stranger)
    found = service_dialled(state, both, 8080, None, "shop")
    assert found == own
    said = service_dialled(state, both, 8080, stranger.hostname, "shop")
    assert said == stranger, "whoever dialled it says so"
