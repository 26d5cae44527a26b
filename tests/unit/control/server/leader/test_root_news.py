"""The first root: agents that wait for it are touched once, and nobody else."""

from __future__ import annotations

from typing import Any

import pytest

from control.kube.client import KubeClient
from control.server.leader.drains import LABEL
from control.server.leader.ledger import Target
from control.server.leader.root_news import AGENT, ANNOTATION, RootNewsDuty, waiting
from control.server.leader.roots import RootsDuty
from control.server.sources.objects import Key, Meta, PodObject
from tests.support.kube.client import with_client
from tests.support.kube.server import serving

NAMESPACE = "tulle-system"


def pod(name: str, **fields: Any) -> PodObject:
    namespace, label = fields.pop("namespace", NAMESPACE), fields.pop("label", AGENT)
    meta = Meta(Key("Pod", namespace, name), "", 0, {LABEL: label}, {}, uid=f"uid-{name}")
    phase, ready = fields.pop("phase", "Running"), fields.pop("ready", False)
    return PodObject(meta, AGENT, "n1", True, None, (), phase, (), ready, **fields)


WAITS = pod("agent-1")


@pytest.mark.parametrize(
    ("other", "is_told"),
    [
        (pod("agent-2"), True),
        (pod("agent-2", phase="Pending"), True),
        (pod("agent-2", ready=True), False),
        (pod("agent-2", is_leaving=True), False),
        (pod("agent-2", phase="Failed"), False),
        (pod("control-1", label="tulle-control"), False),
        (pod("agent-2", namespace="shop"), False),
    ],
)
def test_agents_that_are_not_ready_wait_for_it(other: PodObject, is_told: bool) -> None:
    names = [each.name for each in waiting((WAITS, other), NAMESPACE)]
    assert names == ["agent-1", *([other.meta.name] if is_told else [])]


def put(kube: Any, name: str) -> str:
    metadata = {"name": name, "namespace": NAMESPACE, "annotations": {"kept": "yes"}}
    kube.put({"apiVersion": "v1", "kind": "Pod", "metadata": metadata})
    found = kube.get("v1", "Pod", name, NAMESPACE)
    return str(found["metadata"]["uid"])


def test_the_first_root_is_told_once_and_a_later_one_never() -> None:
    with serving() as kube:
        for name in (NAMESPACE, "shop"):
            kube.namespace(name)
        uid = put(kube, "agent-1")
        ours = pod("agent-1")
        ours = PodObject(
            Meta(ours.meta.key, "", 0, ours.meta.labels, {}, uid=uid),
            AGENT, "n1", True, None, (), "Running", (), False,
        )  # fmt: skip

        async def act(client: KubeClient) -> None:
            news = RootNewsDuty(client, lambda: [ours, pod("agent-gone")], NAMESPACE)
            pem = "PEM"
            namespaces = {"shop"}
            roots = RootsDuty(client, lambda: frozenset(namespaces), lambda: pem, news.published)

            async def write(duty: Any) -> None:
                duty.ledger.want(duty.wanted())
                for target, value in list(duty.ledger.due(0.0)):
                    await duty.write(target, value)
                    duty.ledger.done(target, value)

            roots.ledger.saw(await roots.look())
            await write(roots)
            assert not news.wanted(), "another namespace's root is no news for agents"
            namespaces.add(NAMESPACE)
            await write(roots)
            assert set(news.wanted()) == {
                Target("Pod", NAMESPACE, "agent-1", uid),
                Target("Pod", NAMESPACE, "agent-gone", "uid-agent-gone"),
            }
            await write(news)
            assert not news.wanted()
            pem = "ANOTHER"
            await write(roots)
            roots.ledger.saw(await roots.look())
            pem = "A THIRD"
            await write(roots)
            assert not news.wanted(), "who has a root follows a change by itself"

        with_client(kube, act)
        found = kube.get("v1", "Pod", "agent-1", NAMESPACE)
        assert found is not None
        annotations = found["metadata"]["annotations"]
        assert annotations["kept"] == "yes"
        assert len(annotations[ANNOTATION]) == 16
