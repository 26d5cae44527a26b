"""Texts for the cluster, and kubectl, with a program in its place."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from tests.e2e import steps
from tests.e2e.__main__ import installing
from tests.e2e.cluster import HERE, Cluster, Settings, manifest, namespace, scripts
from tests.e2e.kubectl import CommandFailed, Kubectl, ran

SETTINGS = Settings("registry:5000/tulle:1.2", "/etc/cni/elsewhere", "example.org")
VERSION = "1.34"
NAMES = sorted(path.stem for path in (HERE / "manifests").glob("*.yaml"))


@pytest.mark.parametrize("name", NAMES)
def test_every_manifest_is_one_that_the_api_server_takes(name: str) -> None:
    text = manifest(name, SETTINGS)
    found = list(yaml.safe_load_all(text))
    for each in found:
        assert each["metadata"]["namespace"].startswith("tulle-e2e")
        if not each["apiVersion"].startswith("security.istio.io"):
            kubernetes_validate.validate(each, VERSION, strict=True)
    assert "E2E_" not in text


def test_the_settings_are_in_the_manifests() -> None:
    texts = {name: manifest(name, SETTINGS) for name in NAMES}
    images = [line for text in texts.values() for line in text.splitlines() if "image:" in line]
    assert len(images) > 10
    assert all(SETTINGS.image in line for line in images)
    assert "[example.org/ns/tulle-e2e/sa/client]" in texts["policy"]
    assert "{path: /etc/cni/elsewhere}" in texts["apps"]


def test_the_scripts_travel_whole() -> None:
    data = json.loads(scripts("x"))["data"]
    assert sorted(data) == ["caller.py", "get.py", "server.py"]
    assert all(compile(text, name, "exec") for name, text in data.items())
    assert json.loads(namespace("x", {"a": "b"}))["metadata"]["labels"] == {"a": "b"}


def test_every_step_has_a_name_that_can_be_chosen() -> None:
    assert list(steps.STEPS)[:2] == ["apps", "enrol"]
    assert {"probes", "early", "agents", "ztunnels"} <= set(steps.STEPS)


@pytest.mark.parametrize(
    ("image", "words"),
    [
        ("tulle", ["image.repository=tulle", "platform=kind"]),
        ("r:5000/a/tulle", ["image.repository=r:5000/a/tulle", "platform=kind"]),
        ("r:5000/tulle:1", ["image.repository=r:5000/tulle", "platform=kind", "image.tag=1"]),
        (
            "tulle@sha256:ab",
            ["image.repository=tulle", "platform=kind", "image.digest=sha256:ab"],
        ),
    ],
)
def test_an_image_is_told_in_the_charts_words(image: str, words: list[str]) -> None:
    found = installing(image, "kind", ("a=b",))
    assert found[0] == "install"
    assert found[2::2] == [*words, "a=b"]


# Answers as kubectl would, by the words that it is asked with.
FAKE = """
import json, sys
words = sys.argv[1:]
kubelets = {"agent-1": {"recognised": True, "reason": ""},
            "agent-2": {"recognised": False, "reason": "root_cgroup"}}
if "get" in words:
    pods = [{"metadata": {"name": n}, "spec": {"nodeName": "n" + n[-1]}} for n in kubelets]
    print(json.dumps({"items": pods}))
elif "exec" in words and "get.py" in words[-2]:
    print(words[-1], "answered" if "open" in words[-1] else words[-1].split("/")[-1] + ": why")
    sys.exit("command terminated with exit code 1" if "open" not in words[-1] else 0)
elif "exec" in words:
    name = next(w for w in words if w in kubelets)
    print(json.dumps({"kubelet": kubelets[name], "pods": []}))
"""


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    program = tmp_path / "kubectl"
    program.write_text(f"#!{sys.executable}\n{FAKE}")
    program.chmod(0o755)
    return Cluster(Kubectl("/k", "c", str(program)), SETTINGS)


def test_every_agent_is_asked_about_its_kubelet(cluster: Cluster) -> None:
    assert set(cluster.agents()) == {"n1", "n2"}
    assert steps.unrecognised(cluster) == "n2: root_cgroup"


def test_a_refusal_is_a_refusal_and_nothing_else(cluster: Cluster) -> None:
    assert cluster.refused("p", "http://x/refused") == ""
    assert cluster.refused("p", "http://x/open") == "tulle-e2e/p was answered by http://x/open"
    assert "unresolved: why" in cluster.refused("p", "http://x/unresolved")


def test_a_command_that_fails_says_why() -> None:
    said = "import sys; print('first'); sys.exit('second')"
    with pytest.raises(CommandFailed, match=r"exit 1: first \| second"):
        ran([sys.executable, "-c", said])
    with pytest.raises(CommandFailed, match="timed out"):
        ran([sys.executable, "-c", "input()"], timeout_s=0.01)
    with pytest.raises(CommandFailed, match="absent"):
        ran(["/absent"])
    assert Kubectl("/k", "c").command("get") == [
        "kubectl",
        "--kubeconfig",
        "/k",
        "--context",
        "c",
        "get",
    ]
