"""Ztunnels that drain: renamed once another serves their node, and no sooner."""

from __future__ import annotations

from typing import Any

import pytest

from control.kube.client import KubeClient
from control.server.leader.drains import DRAINING, LABEL, SERVING, DrainDuty, outlived
from control.server.leader.ledger import Target
from control.server.sources.objects import Key, Meta, PodObject
from tests.support.kube.client import with_client
from tests.support.kube.server import serving

NAMESPACE = "tulle-system"


def pod(name: str, node: str = "n1", *, leaving: bool = False, **fields: Any) -> PodObject:
    namespace = fields.pop("namespace", NAMESPACE)
    labels = {LABEL: fields.pop("label", SERVING)}
    meta = Meta(Key("Pod", namespace, name), "", 0, labels, {}, uid=f"uid-{name}")
    ready = fields.pop("ready", not leaving)
    return PodObject(
        meta, "tulle-ztunnel", node, False, None, (), "Running", (), ready, is_leaving=leaving
    )


OLD, NEW = pod("old", leaving=True), pod("new")


def names(*pods: PodObject) -> list[str]:
    return [each.name for each in outlived(pods, NAMESPACE)]


def test_one_that_is_being_deleted_beside_one_that_is_ready() -> None:
    assert outlived((OLD, NEW), NAMESPACE) == {Target("Pod", NAMESPACE, "old", "uid-old"): DRAINING}


@pytest.mark.parametrize(
    "other",
    [
        pod("new", ready=False),
        pod("new", "n2"),
        pod("new", leaving=True, ready=True),
        pod("new", label="tulle-agent"),
        pod("new", namespace="shop"),
    ],
    ids=["not ready", "elsewhere", "leaving too", "an agent", "somebody's"],
)
def test_nobody_else_serves_its_node(other: PodObject) -> None:
    assert names(OLD, other) == []


def test_what_is_not_ours_or_is_renamed_already_stays() -> None:
    foreign = pod("old", leaving=True, namespace="shop")
    renamed = pod("old", leaving=True, label=DRAINING)
    assert names(foreign, renamed, NEW) == []


def test_the_label_of_that_pod_is_written_and_of_no_successor() -> None:
    with serving() as kube:
        kube.namespace(NAMESPACE)
        kube.put(
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": "old", "namespace": NAMESPACE, "labels": {LABEL: SERVING}},
            }
        )
        found = kube.get("v1", "Pod", "old", NAMESPACE)
        assert found is not None
        uid = found["metadata"]["uid"]

        async def act(client: KubeClient) -> None:
            duty = DrainDuty(client, lambda: (OLD, NEW), NAMESPACE)
            assert list(duty.wanted()) == [Target("Pod", NAMESPACE, "old", "uid-old")]
            await duty.write(Target("Pod", NAMESPACE, "old", "uid-of-before"), DRAINING)
            await duty.write(Target("Pod", NAMESPACE, "gone", "uid"), DRAINING)
            unchanged = kube.get("v1", "Pod", "old", NAMESPACE)
            assert unchanged is not None
            assert unchanged["metadata"]["labels"] == {LABEL: SERVING}
            await duty.write(Target("Pod", NAMESPACE, "old", uid), DRAINING)

        with_client(kube, act)
        written = kube.get("v1", "Pod", "old", NAMESPACE)
        assert written is not None
        assert written["metadata"]["labels"] == {LABEL: DRAINING}
