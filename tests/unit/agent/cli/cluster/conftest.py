"""A small cluster of two nodes, and `tulle` against it."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from agent.cli import main
from tests.support.kube.controllers import Controllers, node, running
from tests.support.kube.server import KubeServer, serving
from tests.unit.agent.cli.cluster.mesh_in_pods import MeshInPods
from tests.unit.agent.cli.mesh_example import example


@dataclass(frozen=True, slots=True)
class Done:
    """A command that has ended."""

    exit_code: int
    stdout: str
    stderr: str


Tulle = Callable[..., Done]


@pytest.fixture
def kube() -> Iterator[KubeServer]:
    with serving() as server:
        for name in ("kn1", "kn2"):
            server.put(node(name))
        yield server


@pytest.fixture
def controllers(kube: KubeServer) -> Iterator[Controllers]:
    with running(kube) as found:
        yield found


@pytest.fixture
def kubeconfig(kube: KubeServer, tmp_path: Path) -> Path:
    path = tmp_path / "kubeconfig"
    value = {
        "current-context": "small",
        "contexts": [{"name": "small", "context": {"cluster": "c"}}],
        "clusters": [{"name": "c", "cluster": {"server": kube.url}}],
    }
    path.write_text(yaml.safe_dump(value))
    return path


@pytest.fixture
def run(kubeconfig: Path, monkeypatch: pytest.MonkeyPatch) -> Tulle:
    """The command with words behind its verb; the kubeconfig is named by the environment."""
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
    monkeypatch.delenv("TULLE_RUN_DIR", raising=False)
    return tulle_here


def tulle_here(*words: str) -> Done:
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = main.run(main.tulle, list(words))
    return Done(code, out.getvalue(), err.getvalue())


@pytest.fixture
def example_mesh(kube: KubeServer, controllers: object, run: Tulle) -> MeshInPods:
    """Tulle on nodes n1 and n2, whose pods answer the example mesh's pages."""
    for name in ("kn1", "kn2"):
        kube.remove("v1", "Node", name)
    for name in ("n1", "n2"):
        kube.put(node(name))
    for name, labels in (example().labels["namespace"]).items():
        kube.namespace(name)
        kube.put(
            {
                "apiVersion": "v1",
                "kind": "Namespace",
                "metadata": {"name": name, "labels": labels},
            }
        )
    assert run("install").exit_code == 0
    found = MeshInPods(example())
    kube.commands = found
    return found
