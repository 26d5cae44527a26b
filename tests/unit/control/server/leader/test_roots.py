"""The CA's roots at the API server: where they belong, and nothing of anybody else's."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from control.kube.client import KubeClient
from control.server.leader.ledger import Target
from control.server.leader.roots import KEY, LABEL, NAME, NotOurs, RootsDuty
from tests.support.kube.client import with_client
from tests.support.kube.kinds import TRUST_BUNDLES
from tests.support.kube.server import KubeServer, serving

SHOP, OWN = Target("ConfigMap", "shop", NAME), Target("ConfigMap", "tulle-system", NAME)
BUNDLE = Target("ClusterTrustBundle", "", NAME)


@pytest.fixture
def kube() -> Iterator[KubeServer]:
    with serving() as server:
        for name in ("shop", "tulle-system"):
            server.namespace(name)
        yield server


def config_map(namespace: str, **labels: str) -> dict[str, Any]:
    metadata = {"name": NAME, "namespace": namespace, "labels": labels}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {KEY: "old"}}


def act(kube: KubeServer, what: Callable[[RootsDuty], Awaitable[None]], pem: str = "PEM") -> None:
    async def whole(client: KubeClient) -> None:
        namespaces = frozenset({"shop", "tulle-system"})
        await what(RootsDuty(client, lambda: namespaces, lambda: pem))

    with_client(kube, whole)


async def write_all(duty: RootsDuty) -> None:
    """One round, as the writer does it."""
    duty.ledger.saw(await duty.look())
    duty.ledger.want(duty.wanted())
    for target, value in duty.ledger.due(0.0):
        await duty.write(target, value)
        duty.ledger.done(target, value)


def data(kube: KubeServer, namespace: str) -> object:
    found = kube.get("v1", "ConfigMap", NAME, namespace)
    return None if found is None else found["data"]


def test_every_enrolled_namespace_has_it_and_only_changes_are_written(kube: KubeServer) -> None:
    act(kube, write_all)
    assert data(kube, "shop") == data(kube, "tulle-system") == {KEY: "PEM"}
    version = kube.store.version
    act(kube, write_all)
    assert kube.faults.count("PATCH .*") == 2
    assert kube.store.version == version
    act(kube, write_all, pem="NEW")
    assert data(kube, "shop") == {KEY: "NEW"}


def test_it_is_put_right_and_goes_with_the_enrolment(kube: KubeServer) -> None:
    kube.namespace("left")
    kube.put(config_map("shop", **dict([LABEL])))
    kube.put(config_map("left", **dict([LABEL])))
    act(kube, write_all)
    assert data(kube, "shop") == {KEY: "PEM"}
    assert data(kube, "left") is None


def test_one_that_somebody_else_made_stays(kube: KubeServer) -> None:
    kube.put(config_map("shop"))
    kube.namespace("left")
    kube.put(config_map("left"))

    async def refused(duty: RootsDuty) -> None:
        await duty.look()
        with pytest.raises(NotOurs, match="ConfigMap shop/tulle-ca-root-cert is not ours"):
            await duty.write(SHOP, "PEM")
        await duty.write(Target("ConfigMap", "left", NAME), None)

    act(kube, refused)
    assert data(kube, "shop") == data(kube, "left") == {KEY: "old"}


def test_a_trust_bundle_is_made_where_the_api_server_has_them(kube: KubeServer) -> None:
    act(kube, write_all)
    assert kube.faults.count(".*clustertrustbundles.*") == 1, "one look, no write"
    kube.store.resources.append(TRUST_BUNDLES)
    act(kube, write_all)
    made = kube.get("certificates.k8s.io/v1beta1", "ClusterTrustBundle", NAME)
    assert made is not None
    assert made["spec"] == {"trustBundle": "PEM"}

    async def seen(duty: RootsDuty) -> None:
        assert (await duty.look())[BUNDLE] == "PEM"

    act(kube, seen)
