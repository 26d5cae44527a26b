"""The chart rendered here against Helm's rendering, which is checked in and, if Helm is installed,
made again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agent.cli.chart import release, settings
from agent.cli.chart.errors import ChartError
from daemonset.tools import __main__ as tools
from daemonset.tools import render

CHART = release.load()
EVERYTHING = (
    "monitoring.podMonitor=true",
    "monitoring.prometheusRule=true",
    "monitoring.dashboards=true",
    "monitoring.labels.release=x",
    "image.pullSecrets[0].name=secret",
    "controlPlane.tolerations[0].operator=Exists",
    "controlPlane.nodeSelector.disk=ssd",
    "controlPlane.podAnnotations.a=b",
    "agent.extraArgs={--one,--two}",
    "mesh.network=n",
    "mesh.alwaysTunnel=true",
)
NOTHING = (
    "agent.direct=false",
    "agent.shortcut=false",
    "agent.mountBpffs=false",
    "ztunnel.accessLog=false",
    "cni.enabled=false",
    "networkPolicy.enabled=false",
    "controlPlane.podDisruptionBudget=false",
    "security.appArmor=",
    "crds.install=never",
)


def objects(*words: str, service: str = "Helm", **more: Any) -> list[dict[str, Any]]:
    return CHART.objects(settings.settings(CHART, words), service=service, **more)


def test_the_objects_are_those_that_helm_made() -> None:
    base = render.MANIFESTS / "base/tulle.yaml"
    found = objects("namespace.create=true", "crds.install=never")
    wanted = render.objects_of(base.read_text())
    assert render.as_set([render.without_helm(each) for each in found]) == render.as_set(wanted)


@pytest.mark.parametrize(
    "words",
    [
        ("profile=ha", "platform=gke"),
        ("platform=openshift",),
        ("uninstall=true",),
        EVERYTHING,
        NOTHING,
    ],
    ids=["ha", "openshift", "uninstall", "everything", "nothing"],
)
def test_the_objects_are_those_that_helm_makes_now(words: tuple[str, ...]) -> None:
    program = tools.helm()
    if program is None:
        pytest.skip("no helm: make ready-dev")
    flags = [part for word in words for part in ("--set", word)]
    wanted = render.objects_of(render.helm(*flags, program=program))
    assert render.as_set(objects("namespace.create=true", *words)) == render.as_set(wanted)


@pytest.mark.parametrize("platform", CHART.names("platforms"))
def test_every_platform_renders_in_every_profile(platform: str) -> None:
    for profile in CHART.names("profiles"):
        found = objects(f"platform={platform}", f"profile={profile}", "crds.install=never")
        assert {"Deployment", "DaemonSet"} <= {each["kind"] for each in found}


def test_definitions_of_somebody_else_are_left_alone() -> None:
    def lookup(_api: str, _kind: str, _namespace: str, name: str) -> dict[str, Any]:
        labels = {"app.kubernetes.io/part-of": "tulle"} if name.startswith("peer") else {}
        return {"metadata": {"name": name, "labels": labels}}

    found = objects(lookup=lookup, service=release.SERVICE)
    assert definitions(found) == ["peerauthentications.security.istio.io"]


def definitions(found: list[dict[str, Any]]) -> list[str]:
    return [each["metadata"]["name"] for each in found if "Definition" in each["kind"]]


@pytest.mark.parametrize(
    ("name", "namespace", "is_taken"),
    [
        ("tulle", release.NAMESPACE, True),
        ("tulle", "elsewhere", False),
        ("other", release.NAMESPACE, False),
        ("", "", False),  # left by `tulle uninstall`, or put there by kubectl
    ],
)
def test_helm_takes_definitions_of_its_own_release_alone(
    name: str, namespace: str, is_taken: bool
) -> None:
    """Others it cannot import: the installation failed."""
    labels = {"app.kubernetes.io/part-of": "tulle"}
    notes = {"meta.helm.sh/release-name": name, "meta.helm.sh/release-namespace": namespace}

    def lookup(_api: str, _kind: str, _namespace: str, own: str) -> dict[str, Any]:
        meta: dict[str, Any] = {"name": own, "labels": labels}
        return {"metadata": {**meta, "annotations": notes} if name else meta}

    assert len(definitions(objects(lookup=lookup))) == (2 if is_taken else 0)
    assert len(definitions(objects())) == 2


def test_everything_says_by_what_it_is_managed_and_where_it_is() -> None:
    for each in objects("crds.install=never", service=release.SERVICE):
        assert each["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "tulle"
        assert each["metadata"].get("namespace", release.NAMESPACE) == release.NAMESPACE


def test_a_folder_without_a_chart_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ChartError, match="not whole"):
        release.load(tmp_path)


@pytest.mark.parametrize("text", ["a: [", "- x", "{a: 1}"])
def test_a_template_that_makes_no_object_is_refused_by_name(text: str) -> None:
    files = {**CHART.files, "templates/wrong.yaml": text}
    with pytest.raises(ChartError, match=r"wrong\.yaml"):
        release.Chart(files).objects(settings.settings(CHART, ()))
