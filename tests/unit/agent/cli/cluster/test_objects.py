from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agent.cli.cluster import objects
from agent.cli.cluster.choice import ClusterChoice
from agent.cli.cluster.objects import Applied, Applier, Kinds, ObjectRef
from agent.cli.cluster.session import ClusterError, ask
from control.kube.client import KubeClient
from tests.support.kube.server import KubeServer


def config_map(name: str, namespace: str = "default", **data: str) -> dict[str, Any]:
    meta = {"name": name, "namespace": namespace}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": data}


NAMESPACE = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "new"}}


def applied(kubeconfig: Path, *values: dict[str, Any], **more: bool) -> list[str]:
    told: list[Applied] = []

    async def act(client: KubeClient) -> None:
        await Applier(client, **more).apply(values, told.append)

    ask(ClusterChoice(kubeconfig), act)
    return [f"{each.done} {each.ref}" for each in told]


def test_objects_come_after_those_that_they_need(kube: KubeServer, kubeconfig: Path) -> None:
    values = [config_map("c", "new", a="1"), NAMESPACE]
    assert applied(kubeconfig, *values) == ["created Namespace new", "created ConfigMap new/c"]
    assert applied(kubeconfig, *values) == ["unchanged Namespace new", "unchanged ConfigMap new/c"]
    assert applied(kubeconfig, config_map("c", "new", a="2")) == ["configured ConfigMap new/c"]


def test_a_dry_run_in_a_namespace_that_is_not_there(kube: KubeServer, kubeconfig: Path) -> None:
    values = [config_map("c", "new", a="1"), NAMESPACE]
    said = ["created Namespace new", "created ConfigMap new/c"]
    assert applied(kubeconfig, *values, dry_run=True) == said
    assert kube.get("v1", "Namespace", "new") is None


def test_a_kind_that_is_not_served_is_named(kube: KubeServer, kubeconfig: Path) -> None:
    value = {"apiVersion": "monitoring.coreos.com/v1", "kind": "PodMonitor", "metadata": {}}
    value["metadata"] = {"name": "x", "namespace": "default"}
    with pytest.raises(ClusterError, match=r"no PodMonitor of monitoring\.coreos\.com/v1"):
        applied(kubeconfig, value)


def test_a_conflict_names_the_object_the_field_and_the_way_out(
    kube: KubeServer, kubeconfig: Path
) -> None:
    kube.put(config_map("c", a="theirs"))
    with pytest.raises(ClusterError, match=r"ConfigMap default/c: .*\.data\.a.*force-conflicts"):
        applied(kubeconfig, config_map("c", a="ours"))
    assert applied(kubeconfig, config_map("c", a="ours"), force=True) == [
        "configured ConfigMap default/c"
    ]


def test_removal_passes_over_what_is_gone(kube: KubeServer, kubeconfig: Path) -> None:
    kube.put(config_map("c"))
    refs = [ObjectRef("v1", "ConfigMap", "default", name) for name in ("c", "gone")]
    refs.append(ObjectRef("nobody/v1", "Knows", "", "x"))
    told: list[Applied] = []
    ask(ClusterChoice(kubeconfig), lambda client: objects.remove(client, refs, told.append))
    assert told == [Applied(refs[0], "removed")]
    assert kube.get("v1", "ConfigMap", "c", "default") is None


def test_a_group_is_asked_for_once(kube: KubeServer, kubeconfig: Path) -> None:
    async def act(client: KubeClient) -> None:
        kinds = Kinds(client)
        found = [await kinds.find("apps/v1", each) for each in ("Deployment", "DaemonSet", "X")]
        assert [each and each.plural for each in found] == ["deployments", "daemonsets", None]

    ask(ClusterChoice(kubeconfig), act)
    assert kube.faults.count("GET /apis/apps/v1") == 1
