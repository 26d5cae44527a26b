"""The cluster as the steps use it: texts to apply, pods to run in, agents to ask."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.e2e import views
from tests.e2e.kubectl import CommandFailed, Kubectl
from tests.e2e.views import Object, Tally

HERE = Path(__file__).parent
SYSTEM, MESH, PLAIN = "tulle-system", "tulle-e2e", "tulle-e2e-plain"
COUNTS = "/tmp/counts.json"  # caller.py's
# In the agent's own container, whose socket is for root of that node alone.
_STATUS = (
    "import json, os; from pathlib import Path; from agent.fetch import get_json; "
    'run = Path(os.environ.get("TULLE_RUN_DIR", "/run/tulle")); '
    'print(json.dumps(get_json(run / os.environ["TULLE_NODE"] / "agent.sock", "/status")))'
)


@dataclass(frozen=True, slots=True)
class Settings:
    image: str
    cni_conf_dir: str = "/etc/cni/net.d"
    trust_domain: str = "cluster.local"


def manifest(name: str, settings: Settings) -> str:
    """A text of manifests/ with the settings in it."""
    text = (HERE / "manifests" / f"{name}.yaml").read_text()
    for word, value in (
        ("E2E_IMAGE", settings.image),
        ("E2E_CNI_CONF_DIR", settings.cni_conf_dir),
        ("E2E_TRUST_DOMAIN", settings.trust_domain),
    ):
        text = text.replace(word, value)
    return text


def scripts(namespace: str) -> str:
    """The ConfigMap with pods/*.py, as JSON."""
    data = {path.name: path.read_text() for path in sorted((HERE / "pods").glob("*.py"))}
    meta = {"name": "pods", "namespace": namespace}
    return json.dumps({"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": data})


def namespace(name: str, labels: Mapping[str, str]) -> str:
    meta = {"name": name, "labels": dict(labels)}
    return json.dumps({"apiVersion": "v1", "kind": "Namespace", "metadata": meta})


@dataclass(frozen=True, slots=True)
class Cluster:
    kubectl: Kubectl
    settings: Settings

    def apply(self, name: str) -> None:
        self.kubectl.apply(manifest(name, self.settings))

    def delete(self, name: str) -> None:
        text = manifest(name, self.settings)
        self.kubectl("delete", "--ignore-not-found", "--wait=false", "-f", "-", text=text)

    def pods(self, selector: str = "", where: str = MESH) -> list[Object]:
        return self.kubectl.items("pods", where, selector)

    def get(self, pod: str, *urls: str, where: str = MESH) -> None:
        """One request to each URL out of the pod; CommandFailed: one was not answered."""
        self.kubectl.exec(where, pod, "python3", "/app/get.py", *urls)

    def refused(self, pod: str, url: str, where: str = MESH) -> str:
        """Empty: refused. Or else: it was answered, or the pod could not be asked at all."""
        try:
            self.get(pod, url, where=where)
        except CommandFailed as exc:
            return "" if " refused: " in str(exc) else str(exc)
        return f"{where}/{pod} was answered by {url}"

    def agents(self) -> dict[str, Object]:
        """Status of every node's agent."""
        found: dict[str, Any] = {}
        for pod in self.pods("app.kubernetes.io/name=tulle-agent", SYSTEM):
            node, name = pod["spec"]["nodeName"], pod["metadata"]["name"]
            found[node] = json.loads(self.kubectl.exec(SYSTEM, name, "python3", "-c", _STATUS))
        return found

    def uncaptured(self) -> str:
        pods = [pod for pod in self.pods() if pod["status"]["phase"] == "Running"]
        return views.uncaptured(self.agents(), views.by_node(pods)) if pods else "no pods"

    def counts(self) -> Tally:
        """The sum of all callers."""
        found = Tally()
        for name in views.names(self.pods("app=caller")):
            found += Tally.parse(self.kubectl.exec(MESH, name, "cat", COUNTS))
        return found
