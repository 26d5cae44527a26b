"""Installations on the small API server: what is there afterwards, and what is refused before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from agent.cli.cluster import install, record
from control.kit.version import version
from tests.support.kube.controllers import Controllers, node
from tests.support.kube.server import KubeServer
from tests.support.kube.status import refusal
from tests.unit.agent.cli.cluster.conftest import Tulle

PLACE = "tulle-system"


def names(kube: KubeServer, plural: str) -> set[str]:
    return {key[2] for key in kube.store.objects if key[0][1] == plural}


def container(kube: KubeServer, kind: str, name: str) -> dict[str, Any]:
    value = kube.get("apps/v1", kind, name, PLACE)
    assert value is not None
    found = value["spec"]["template"]["spec"]["containers"][0]
    assert isinstance(found, dict)
    return found


def writes(kube: KubeServer) -> list[str]:
    return [
        str(each)
        for each in kube.faults.requests
        if each.method in ("PATCH", "PUT", "DELETE") and "dryRun" not in each.params
    ]


@pytest.mark.usefixtures("controllers")
def test_an_installation_is_whole_and_waited_for(kube: KubeServer, run: Tulle) -> None:
    done = run("install")
    assert done.exit_code == 0, done.stderr
    assert {"tulle-agent", "tulle-ztunnel"} == names(kube, "daemonsets")
    assert "control plane 2 of 2, agents 2 of 2, ztunnels 2 of 2" in done.stderr
    definition = "authorizationpolicies.security.istio.io"
    assert definition in names(kube, "customresourcedefinitions")
    made = kube.get("apps/v1", "Deployment", "tulle-control", PLACE)
    assert made is not None
    managers = {each["manager"] for each in made["metadata"]["managedFields"]}
    assert "tulle-cli" in managers


@pytest.mark.usefixtures("controllers")
def test_repeating_it_changes_nothing_and_keeps_the_settings(kube: KubeServer, run: Tulle) -> None:
    assert run("install", "--set", "image.repository=registry.example/tulle").exit_code == 0
    before = kube.store.version
    again = run("install")
    assert again.exit_code == 0, again.stderr
    assert "(0 of " in again.stderr
    assert kube.store.version == before
    image = container(kube, "DaemonSet", "tulle-agent")["image"]
    assert image == f"registry.example/tulle:{version()}"
    assert run("install", "--reset").exit_code == 0
    assert container(kube, "DaemonSet", "tulle-agent")["image"] == f"tulle:{version()}"


@pytest.mark.usefixtures("controllers")
def test_objects_that_are_no_longer_wanted_go(kube: KubeServer, run: Tulle) -> None:
    assert run("install", "--set", "monitoring.dashboards=true").exit_code == 0
    assert "tulle-board-mesh" in names(kube, "configmaps")
    assert run("upgrade", "--set", "monitoring.dashboards=false").exit_code == 0
    assert "tulle-board-mesh" not in names(kube, "configmaps")


def test_a_dry_run_writes_nothing(kube: KubeServer, run: Tulle) -> None:
    done = run("install", "--dry-run")
    assert done.exit_code == 0, done.stderr
    assert "created DaemonSet tulle-system/tulle-agent (dry run)" in done.stderr
    assert writes(kube) == []
    assert names(kube, "daemonsets") == set()


@pytest.mark.usefixtures("controllers")
def test_a_dry_run_tells_what_would_change(kube: KubeServer, run: Tulle) -> None:
    assert run("install").exit_code == 0
    before = kube.store.version
    done = run("install", "--dry-run", "--set", "ztunnel.workers=2")
    assert "configured DaemonSet tulle-system/tulle-ztunnel (dry run)" in done.stderr
    assert "unchanged DaemonSet tulle-system/tulle-agent (dry run)" in done.stderr
    assert kube.store.version == before


def test_manifests_without_a_cluster(run: Tulle, tmp_path: Path) -> None:
    done = run("install", "--dry-run", "-o", "yaml", "--kubeconfig", str(tmp_path / "none"))
    assert done.exit_code == 0, done.stderr
    kinds = [each["kind"] for each in yaml.safe_load_all(done.stdout)]
    assert kinds[0] == "Namespace"
    assert kinds[-1] == "DaemonSet"
    assert "without a cluster's word" in done.stderr


def test_a_part_that_does_not_get_ready_is_named_with_its_reason(
    controllers: Controllers, run: Tulle
) -> None:
    controllers.hold("tulle-agent", "ImagePullBackOff", "no such image: tulle")
    done = run("install", "--timeout", "1s")
    assert done.exit_code == 1
    said = "tulle-agent-0 on kn1: container agent: ImagePullBackOff: no such image: tulle"
    assert said in done.stderr
    assert "agents 0 of 2" in done.stderr


@pytest.mark.usefixtures("controllers")
def test_the_platform_is_read_off_the_nodes(kube: KubeServer, run: Tulle) -> None:
    for name in ("kn1", "kn2"):
        kube.put(node(name, kubeletVersion="v1.36.2+k3s1"))
    assert "platform: k3s" in run("install").stderr
    args = container(kube, "DaemonSet", "tulle-agent")["args"]
    mounts = kube.get("apps/v1", "DaemonSet", "tulle-agent", PLACE)
    assert "/run/k3s/containerd" in str(mounts)
    assert args


@pytest.mark.usefixtures("controllers")
def test_fields_of_somebody_else_are_not_taken_without_a_word(kube: KubeServer, run: Tulle) -> None:
    assert run("install").exit_code == 0
    value = kube.get("apps/v1", "Deployment", "tulle-control", PLACE)
    assert value is not None
    kube.put({**value, "spec": {**value["spec"], "replicas": 7}})
    done = run("install")
    assert done.exit_code == 1
    assert "Deployment tulle-system/tulle-control" in done.stderr
    assert ".spec.replicas" in done.stderr
    assert "--force-conflicts" in done.stderr
    assert run("install", "--force-conflicts").exit_code == 0


def ambient(kube: KubeServer) -> None:
    kube.namespace("istio-system")
    kube.put(
        {
            "apiVersion": "apps/v1",
            "kind": "DaemonSet",
            "metadata": {"name": "ztunnel", "namespace": "istio-system", "labels": {}},
            "spec": {},
        }
    )


def old(kube: KubeServer) -> None:
    kube.put(node("kn1", kernelVersion="5.4.0-generic"))
    kube.put(node("kn2", kernelVersion="4.18.0"))


def denied(kube: KubeServer) -> None:
    kube.fail("PATCH /api/v1/namespaces/.*", refusal(403, "Forbidden", 'User "u" cannot patch'))


@pytest.mark.parametrize(
    ("trouble", "said"),
    [
        (ambient, "istio-system/ztunnel"),
        (old, "kn1: 5.4.0-generic; kn2: 4.18.0"),
        (denied, 'User "u" cannot patch'),
    ],
)
def test_a_cluster_that_is_not_for_us_is_left_as_it_is(
    kube: KubeServer, run: Tulle, trouble: Any, said: str
) -> None:
    trouble(kube)
    done = run("install")
    assert done.exit_code == 1
    assert said in done.stderr
    assert names(kube, "deployments") == set()


@pytest.mark.usefixtures("controllers")
def test_definitions_of_istio_are_left_alone(kube: KubeServer, run: Tulle) -> None:
    kube.install_istio_kinds()
    done = run("install")
    assert done.exit_code == 0, done.stderr
    assert "TUL1407" in done.stderr
    for each in (key for key in kube.store.objects if key[0][1] == "customresourcedefinitions"):
        assert "labels" not in kube.store.objects[each]["metadata"]


def test_no_cluster_is_a_clear_error(kube: KubeServer, run: Tulle, tmp_path: Path) -> None:
    with kube.away():
        done = run("install")
    assert done.exit_code == 2
    assert "cluster small: not reachable" in done.stderr
    done = run("install", "--context", "none")
    assert done.exit_code == 2
    assert "no context 'none'; there are: small" in done.stderr
    done = run("install", "--kubeconfig", str(tmp_path / "absent"))
    assert done.exit_code == 2
    assert "absent" in done.stderr


def test_a_wrong_setting_is_a_clear_error(run: Tulle) -> None:
    done = run("install", "--set", "cni.bindir=/x")
    assert done.exit_code == 2
    assert "did you mean cni.binDir?" in done.stderr


def labelled(kube: KubeServer, manager: str, said: str, place: str = PLACE) -> None:
    labels = {
        "app.kubernetes.io/name": "tulle-control",
        "app.kubernetes.io/part-of": "tulle",
        "app.kubernetes.io/version": said,
    }
    labels |= {"app.kubernetes.io/managed-by": manager} if manager else {}
    kube.namespace(place)
    meta = {"name": "tulle-control", "namespace": place, "labels": labels}
    kube.put({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta, "spec": {}})


@pytest.mark.parametrize(
    ("words", "manager", "said", "place", "told"),
    [
        (["install"], "Helm", "0.1.0", PLACE, "use helm upgrade --install"),
        (["upgrade"], "Helm", "0.1.0", PLACE, "use helm upgrade"),
        (["install"], "", "0.1.0", PLACE, "from its manifests"),
        (["install"], "tulle", "0.0.9", PLACE, "tulle upgrade makes it"),
        (["upgrade"], "tulle", "99.1.0", PLACE, "newer than"),
        (["install"], "tulle", "0.1.0", "elsewhere", "installed in namespace elsewhere"),
    ],
)
def test_another_installation_is_not_written_over(
    kube: KubeServer, run: Tulle, words: list[str], manager: str, said: str, place: str, told: str
) -> None:
    labelled(kube, manager, said, place)
    done = run(*words)
    assert done.exit_code == 1
    assert told in done.stderr
    assert writes(kube) == []


def test_upgrade_needs_something_to_upgrade(run: Tulle) -> None:
    done = run("upgrade")
    assert done.exit_code == 1
    assert "tulle install" in done.stderr


@pytest.mark.usefixtures("controllers")
def test_a_broken_installation_can_be_repeated(kube: KubeServer, run: Tulle) -> None:
    fault = kube.fail(
        "PATCH /apis/apps/v1/.*/tulle-agent", refusal(503, "ServiceUnavailable", "etcd is away")
    )
    done = run("install", "--set", "ztunnel.workers=3")
    assert done.exit_code == 1
    assert "etcd is away" in done.stderr
    kube.faults.active.remove(fault)
    done = run("install")
    assert done.exit_code == 0, done.stderr
    assert "--workers=3" in container(kube, "DaemonSet", "tulle-ztunnel")["args"]


def test_versions_are_compared_as_numbers() -> None:
    assert install.numbers("0.10.0") > install.numbers("0.9.1-rc.1")


def test_a_damaged_record_is_named(kube: KubeServer, run: Tulle) -> None:
    kube.namespace(PLACE)
    value = record.Record("0.1.0").as_object()
    kube.put({**value, "data": {"version": "0.1.0", "settings.yaml": "- a"}})
    done = run("install")
    assert done.exit_code == 1
    assert f"ConfigMap {PLACE}/tulle-installation is damaged" in done.stderr


def test_a_kind_that_the_cluster_has_not_stops_it_before_the_first_write(
    kube: KubeServer, run: Tulle
) -> None:
    done = run("install", "--set", "monitoring.podMonitor=true")
    assert done.exit_code == 1
    assert "no PodMonitor of monitoring.coreos.com/v1" in done.stderr
    assert writes(kube) == []


@pytest.mark.usefixtures("controllers")
def test_a_conflict_over_an_installation_leaves_it_whole(kube: KubeServer, run: Tulle) -> None:
    assert run("install").exit_code == 0
    value = kube.get("apps/v1", "DaemonSet", "tulle-ztunnel", PLACE)
    assert value is not None
    spec = {**value["spec"], "updateStrategy": {"rollingUpdate": {"maxSurge": 3}}}
    kube.put({**value, "spec": spec})
    kube.faults.requests.clear()
    done = run("install", "--set", "ztunnel.workers=4")
    assert done.exit_code == 1
    assert "DaemonSet tulle-system/tulle-ztunnel" in done.stderr
    assert writes(kube) == []
