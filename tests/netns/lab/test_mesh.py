"""A lab with real control plane, agents and ztunnels: starts them, uses them, removes them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.lab import changes, report
from agent.lab.lab import Lab, Options
from tests.support.kernel.leftovers import none_left
from tests.support.kernel.netns import eventually, need_root

ROOT = Path(__file__).resolve().parents[3]
PINS = Path("/sys/fs/bpf/tulle")
GET = "import socket, sys; print(socket.create_connection((sys.argv[1], 80), timeout=5).recv(99))"
SERVE = (
    "import socket\n"
    "s = socket.create_server(('::', 8080), family=socket.AF_INET6, dualstack_ipv6=True)\n"
    "while True:\n"
    "    c = s.accept()[0]; c.sendall(b'hello'); c.close()\n"
)
POD = """\
apiVersion: v1
kind: Pod
metadata:
  name: {name}
  namespace: shop
  labels: {{app: {name}}}
  annotations: {{tulle.io/lab-node: {node}, tulle.io/lab-command: "sleep infinity"}}
spec: {{containers: [{{name: app}}]}}
"""
MANIFESTS = """\
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop, labels: {app: web}}
spec: {containers: [{name: app}]}
---
apiVersion: v1
kind: Pod
metadata: {name: client, namespace: shop}
spec: {containers: [{name: app}]}
"""


POLICY = """\
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: nobody, namespace: shop}}
spec: {{action: {action}, rules: [{{}}]}}
"""


def node(letter: str) -> str:
    return f"m{os.getpid() % 100000}{letter}"


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    need_root()
    folder = tmp_path / "lab"
    folder.mkdir()
    (folder / "manifests.yaml").write_text(MANIFESTS)
    (folder / "serve.py").write_text(SERVE)
    pods = {
        "shop/web": {"node": node("b"), "command": ["python3", "serve.py"], "ready": {"tcp": 8080}},
        "shop/client": {"node": node("a"), "command": ["sleep", "infinity"]},
    }
    spec = {"name": node("x"), "nodes": {node("a"): {}, node("b"): {}}, "pods": pods}
    (folder / "lab.yaml").write_text(json.dumps(spec))
    made = Lab(tmp_path / "run")
    with none_left(made.run_dir):
        try:  # an interrupted `up` leaves half a lab
            made.up(folder, Options())
            yield made
        finally:
            made.down()


def tulle(lab: Lab, *words: str) -> Any:
    command = [sys.executable, "-m", "agent.cli.main", "--run-dir", str(lab.run_dir), *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout) if "json" in words else done.stdout.decode()


def apply(lab: Lab, text: str) -> subprocess.CompletedProcess[str]:
    words = ["--run-dir", str(lab.run_dir), "lab", "apply", "-f", "-"]
    command = [sys.executable, "-m", "agent.cli.main", *words]
    return subprocess.run(
        command, cwd=ROOT, input=text, capture_output=True, text=True, timeout=60, check=False
    )


def get(lab: Lab) -> str:
    done = lab.run("shop", "client", ["python3", "-c", GET, "web"], timeout_s=20)
    return done.stdout.decode().strip()


def captured(lab: Lab) -> int:
    rows = tulle(lab, "namespace", "list", "-o", "json")
    return sum(row["captured"] for row in rows)


def test_pods_are_enrolled_live_and_everything_goes_away_again(lab: Lab) -> None:
    assert get(lab) == "b'hello'"
    assert captured(lab) == 0
    tulle(lab, "namespace", "add", "shop")  # a lab's working copy needs no --yes
    eventually(lambda: captured(lab) == 2, "both pods captured")
    eventually(lambda: get(lab) == "b'hello'", "traffic through the tunnels")
    changes.kill(lab, "ztunnel", node("a"))
    assert get(lab) == ""  # fails closed
    changes.restart(lab, "ztunnel", node("a"))
    eventually(lambda: get(lab) == "b'hello'", "traffic after the ztunnel's restart")
    changes.stop(lab, "control", None)
    assert get(lab) == "b'hello'"
    changes.restart(lab, "control", None)
    changes.restart(lab, "agent", None)
    eventually(lambda: captured(lab) == 2, "the agents know their pods again")
    states = {item["name"]: item["state"] for item in report.status(lab)["processes"]}
    assert set(states.values()) == {"running"}
    folder = socket_folder(lab)
    changes.kill(lab, "control", None)
    assert folder.exists(), "nobody was there to remove it"
    lab.down()
    assert not folder.exists()


def socket_folder(lab: Lab) -> Path:
    """The control plane's folder for its own sockets, outside the run folder."""
    pid = lab.store.load().processes["control"].pid
    paths = {each.readlink() for each in Path(f"/proc/{pid}/fd").iterdir()}
    (found,) = (each for each in paths if each.name.startswith("tulle-control-"))
    return found


def test_a_pod_added_later_is_captured_before_it_starts(lab: Lab) -> None:
    changes.label(lab, "Namespace", "", "shop", ["istio.io/dataplane-mode=ambient"])
    eventually(lambda: captured(lab) == 2, "both pods captured")
    changes.apply(lab, POD.format(name="late", node=node("a")), "late.yaml")
    assert captured(lab) == 3
    changes.delete(lab, "pod", "shop", "late")
    assert captured(lab) == 2
    dump = lab.run_dir.parent / "dump.json"
    tulle(lab, "dump", "-o", str(dump))
    token = (lab.run_dir / node("a") / "token").read_text().strip()
    assert token not in dump.read_text()
    assert "PRIVATE KEY" not in dump.read_text()
    rows = tulle(lab, "workloads", "-f", str(dump), "-o", "json")
    assert {row["name"] for row in rows} >= {"web", "client"}


def test_apply_says_what_the_control_plane_makes_of_it(lab: Lab) -> None:
    done = apply(lab, "# typo\n" + POLICY.format(action="DENYY"))
    assert done.returncode == 1
    assert done.stdout == "AuthorizationPolicy shop/nobody created\n"
    assert "error: standard input:5: AuthorizationPolicy shop/nobody: " in done.stderr
    assert "'DENYY'" in done.stderr
    assert apply(lab, "# typo\n" + POLICY.format(action="DENYY")).returncode == 1  # still
    good = apply(lab, POLICY.format(action="DENY"))
    assert (good.returncode, good.stderr) == (0, "")
    assert apply(lab, POLICY.format(action="DENY")).stdout.endswith("unchanged\n")
    other = apply(lab, "kind: VirtualService\nmetadata: {name: v, namespace: shop}\n")
    assert other.returncode == 0
    assert "reads no VirtualService" in other.stderr
    changes.stop(lab, "control", None)
    assert apply(lab, POLICY.format(action="ALLOW")).returncode == 2
