from __future__ import annotations

import pytest

from agent.cli.chart import release, settings
from agent.cli.cluster.disruption import warnings
from tests.support.kube.controllers import Controllers
from tests.support.kube.server import KubeServer
from tests.unit.agent.cli.cluster.conftest import Tulle
from tests.unit.agent.cli.cluster.mesh_in_pods import MeshInPods

CHART = release.load()


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("mesh.trustDomain=example.org", "cluster.local → example.org"),
        ("mesh.rootNamespace=root", "policies in istio-system are no longer for the whole mesh"),
        ("cni.enabled=false", "run before it is captured"),
        ("log.level=debug", ""),
    ],
)
def test_what_a_running_mesh_feels(word: str, told: str) -> None:
    before, after = settings.settings(CHART, ()), settings.settings(CHART, (word,))
    found = list(warnings(before, after))
    assert len(found) == bool(told)
    assert told in "".join(found)
    assert "mesh.trustDomain" not in "".join(warnings(after, after))


def test_an_upgrade_tells_it_and_a_first_installation_does_not(
    kube: KubeServer, controllers: Controllers, run: Tulle
) -> None:
    kube.commands = MeshInPods()
    changed = ("--set", "mesh.trustDomain=example.org")
    assert "mesh.trustDomain" not in run("install", *changed).stderr
    assert "mesh.trustDomain" not in run("upgrade", *changed).stderr
    back = run("upgrade", "--set", "mesh.trustDomain=cluster.local")
    assert "warning: mesh.trustDomain: every identity gets another name" in back.stderr
