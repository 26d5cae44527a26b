"""The lab on a real kernel: reachability, names, virtual addresses, exec, and nothing left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.lab import changes, process, report
from agent.lab.lab import Lab, Options
from control.kit.errors import ConfigError, MeshError
from tests.support.kernel import leftovers

ROOT = Path(__file__).resolve().parents[3]
UNMESHED = Options(unmeshed=True)

LAB = """
name: {lab}
nodes: {{{lab}a: {{zone: eu-1}}, {lab}b: {{}}}}
pods:
  a/web: {{node: {lab}b, command: [python3, server.py, "8080"], ready: {{tcp: 8080}}}}
  a/near: {{node: {lab}a, command: [python3, server.py, "8080"], ready: {{tcp: 8080}}}}
  b/client: {{node: {lab}a, command: [sleep, infinity]}}
"""
# Answers with the client's address, on both families.
SERVER = """
import socketserver, sys, socket
class Handler(socketserver.BaseRequestHandler):
    def handle(self):
        self.request.sendall((self.client_address[0] + "\\n").encode())
class Server(socketserver.ThreadingTCPServer):
    address_family = socket.AF_INET6
    allow_reuse_address = True
Server(("::", int(sys.argv[1])), Handler).serve_forever()
"""
MANIFESTS = """
apiVersion: v1
kind: Namespace
metadata:
  name: a  # kept
---
apiVersion: v1
kind: Namespace
metadata: {name: b}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: a}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: http}]}
---
apiVersion: v1
kind: Service
metadata: {name: nobody, namespace: a}
spec: {selector: {app: nobody}, ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: direct, namespace: a}
spec: {clusterIP: None, selector: {app: web}, ports: [{port: 8080}]}
---
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: a, labels: {app: web}}
spec: {containers: [{name: app, ports: [{name: http, containerPort: 8080}]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: near, namespace: a, labels: {app: near}}
spec: {containers: [{name: app}]}
---
apiVersion: v1
kind: Pod
metadata: {name: client, namespace: b}
spec: {containers: [{name: app}]}
"""
CONNECT = """
import socket, sys
with socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=5) as sock:
    print(sock.recv(100).decode().strip())
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    where = tmp_path / "lab"
    where.mkdir()
    (where / "lab.yaml").write_text(LAB.format(lab=short_name()))
    (where / "manifests.yaml").write_text(MANIFESTS)
    (where / "server.py").write_text(SERVER)
    return where


@pytest.fixture
def lab(tmp_path: Path, folder: Path) -> Iterator[Lab]:
    made = Lab(tmp_path / "run")
    with leftovers.none_left(made.run_dir):
        try:  # an interrupted `up` leaves half a lab
            made.up(folder, UNMESHED)
            yield made
        finally:
            made.down()


def short_name() -> str:
    return f"t{os.getpid() % 100000}"


def connect(lab: Lab, target: str, port: int = 8080, pod: str = "client") -> str:
    """The client address that the server saw, or the error."""
    namespace = "b" if pod == "client" else "a"
    done = lab.run(namespace, pod, ["python3", "-c", CONNECT, target, str(port)], timeout_s=20)
    return (done.stdout if done.returncode == 0 else done.stderr).decode().strip()


def test_pods_reach_each_other_over_both_families_and_see_the_real_client(lab: Lab) -> None:
    client = lab.pod("b", "client")[1].address
    for name in ("web", "near"):
        server = lab.pod("a", name)[1].address
        assert connect(lab, server.v6) == client.v6
        assert connect(lab, server.v4) == f"::ffff:{client.v4}"


def test_virtual_addresses_lead_to_ready_pods_also_to_the_caller_itself(lab: Lab) -> None:
    client = lab.pod("b", "client")[1].address
    hosts = lab.run("b", "client", ["cat", "/etc/hosts"]).stdout.decode()
    virtual = [line.split()[0] for line in hosts.splitlines() if " web.a.svc " in line]
    assert len(virtual) == 2
    assert {connect(lab, address, 80) for address in virtual} == {
        client.v6,
        f"::ffff:{client.v4}",
    }
    for address in virtual:  # the hairpin is answered from the node's own address
        assert "Error" not in connect(lab, address, 80, pod="web")
    assert "Error" in connect(lab, "nobody.a", 80)


def test_names_follow_the_working_copy(lab: Lab) -> None:
    assert connect(lab, "web.a.svc.cluster.local", 80)
    assert connect(lab, "direct.a") == lab.pod("b", "client")[1].address.v6
    changes.apply(
        lab,
        "apiVersion: v1\nkind: Service\nmetadata: {name: late, namespace: b}\n"
        "spec: {selector: {app: x}, ports: [{port: 80}]}\n",
        "late.yaml",
    )
    hosts = lab.run("b", "client", ["cat", "/etc/hosts"]).stdout.decode()
    assert " late.b.svc.cluster.local late.b.svc late.b late\n" in hosts
    changes.delete(lab, "service", "b", "late")
    assert "late" not in lab.run("b", "client", ["cat", "/etc/hosts"]).stdout.decode()


def test_exec_gives_exit_code_streams_and_the_pod_around_it(lab: Lab) -> None:
    done = lab.run("b", "client", ["sh", "-c", "cat; hostname; exit 7"], data=b"in\n")
    assert (done.returncode, done.stdout) == (7, b"in\nclient\n")
    cgroup = lab.run("b", "client", ["cat", "/proc/self/cgroup"]).stdout.decode()
    assert f"/tulle-lab/{short_name()}/b-client" in cgroup
    command = ["lab", "exec", "-n", "b", "client", "--", "sh", "-c", "exit 3"]
    assert cli(lab, *command).returncode == 3
    assert cli(lab, "lab", "exec", "-n", "b", "client", "false").returncode == 1
    with pytest.raises(ConfigError, match="no pod 'b/absent'"):
        lab.exec("b", "absent", ["true"])


def cli(lab: Lab, *words: str) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "agent.cli.main", "--run-dir", str(lab.run_dir), *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, timeout=60, check=False)


def test_labels_are_edited_in_place(lab: Lab) -> None:
    changes.label(lab, "Namespace", "", "a", ["tulle.io/dataplane-mode=ambient"])
    text = (lab.run_dir / "manifests" / "manifests.yaml").read_text()
    assert "tulle.io/dataplane-mode: ambient" in text
    assert "name: a  # kept" in text
    changes.label(lab, "Namespace", "", "a", ["tulle.io/dataplane-mode-"])
    assert "dataplane" not in (lab.run_dir / "manifests" / "manifests.yaml").read_text()


def test_pods_come_and_go_while_the_lab_is_up(lab: Lab, folder: Path) -> None:
    node = lab.store.load().nodes[0].name
    pod = (
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: extra\n  namespace: a\n"
        "  labels: {app: web}\n  annotations:\n"
        f"    tulle.io/lab-node: {node}\n"
        "    tulle.io/lab-command: python3 server.py 8080\n"
        "    tulle.io/lab-ready-tcp: '8080'\nspec: {containers: [{name: app}]}\n"
    )
    assert changes.apply(lab, pod, str(folder / "extra.yaml")) == ["Pod a/extra created"]
    first = lab.pod("a", "extra")[1]
    assert connect(lab, first.address.v4)
    changes.apply(lab, pod.replace("{app: web}", "{app: other}"), str(folder / "extra.yaml"))
    assert lab.pod("a", "extra")[1].uid == first.uid  # labels alone do not restart it
    assert changes.delete(lab, "pod", "a", "extra") == ["Pod a/extra deleted"]
    assert first.process is not None
    assert not process.alive(first.process)
    assert not Path("/run/netns", first.netns).exists()
    assert "Error" in connect(lab, first.address.v4)


def test_status_knows_what_died(lab: Lab) -> None:
    victim = lab.pod("a", "web")[1].process
    assert victim is not None
    process.send(victim, signal.SIGKILL)
    process.wait_gone([victim], 5)
    states = {item["name"]: item["state"] for item in report.status(lab)["pods"]}
    assert states == {"web": "dead", "near": "running", "client": "running"}
    with pytest.raises(ConfigError, match="does not run"):
        lab.exec("a", "web", ["true"])


def test_a_second_lab_is_refused(lab: Lab, folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"is up already.*tulle lab down"):
        lab.up(folder, UNMESHED)
    assert connect(lab, "web.a", 80)


def test_a_pod_that_does_not_start_takes_the_lab_down_and_shows_its_log(
    tmp_path: Path, folder: Path
) -> None:
    spec = (folder / "lab.yaml").read_text()
    (folder / "lab.yaml").write_text(
        spec.replace("[sleep, infinity]", "[sh, -c, 'echo gone'], ready: {log: never}")
    )
    run_dir = tmp_path / "run"
    with (
        leftovers.none_left(run_dir),
        pytest.raises(MeshError, match=r"pod b/client ended while it started:\n +gone"),
    ):
        Lab(run_dir).up(folder, UNMESHED)


def test_a_lab_of_that_name_in_another_run_folder_is_left_alone(
    lab: Lab, folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="is up already"):
        Lab(tmp_path / "other").up(folder, UNMESHED)
    client = lab.pod("b", "client")[1]
    assert client.process is not None
    assert process.alive(client.process)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_down_leaves_nothing_after_up_died_half_way(
    tmp_path: Path, folder: Path, number: signal.Signals
) -> None:
    spec = (folder / "lab.yaml").read_text()  # never ready, so that up is half-way for long
    (folder / "lab.yaml").write_text(spec.replace("ready: {tcp: 8080}", "ready: {tcp: 81}"))
    run_dir = tmp_path / "run"
    command = [sys.executable, "-m", "agent.cli.main", "--run-dir", str(run_dir)]
    before = leftovers.look()
    going = subprocess.Popen([*command, "lab", "up", str(folder), "--unmeshed"], cwd=ROOT)
    try:
        deadline = time.monotonic() + 20
        while not started(run_dir):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        going.send_signal(number)
        going.wait(30)
        if number == signal.SIGKILL:
            assert leftovers.left(before, wait_s=0.0) != []
            assert Lab(run_dir).down()
        assert leftovers.left(before) == []
        assert not run_dir.exists()
        assert not Lab(run_dir).down()
    finally:  # a failure leaves nothing behind either
        going.kill()
        going.wait()
        Lab(run_dir).down()


def started(run_dir: Path) -> bool:
    try:
        pods = json.loads((run_dir / "lab.json").read_text())["pods"].values()
    except FileNotFoundError:
        return False
    return any(pod["process"] for pod in pods)
