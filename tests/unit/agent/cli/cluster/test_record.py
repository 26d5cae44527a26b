from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agent.cli.cluster import record
from agent.cli.cluster.choice import ClusterChoice
from agent.cli.cluster.objects import ObjectRef
from agent.cli.cluster.record import Record
from agent.cli.cluster.session import ClusterError, ask
from tests.support.kube.server import KubeServer


def test_there_and_back(kube: KubeServer, kubeconfig: Path) -> None:
    assert ask(ClusterChoice(kubeconfig), record.read) is None
    kube.namespace("tulle-system")
    value = Record("0.1.0", {"image": {"tag": "1.0"}}, (ObjectRef("v1", "Service", "a", "b"),))
    kube.put(value.as_object())
    assert ask(ClusterChoice(kubeconfig), record.read) == value


@pytest.mark.parametrize(
    "data",
    [
        None,
        {"version": "1"},
        {"version": "1", "settings.yaml": "- a", "objects.json": "[]"},
        {"version": "1", "settings.yaml": "a: [", "objects.json": "[]"},
        {"version": "1", "settings.yaml": "", "objects.json": "[[1]]"},
        {"version": "1", "settings.yaml": "", "objects.json": "{"},
    ],
)
def test_a_damaged_record_is_refused_by_name(data: Any) -> None:
    with pytest.raises(ClusterError, match="tulle-installation is damaged"):
        record.parse({"data": data})
