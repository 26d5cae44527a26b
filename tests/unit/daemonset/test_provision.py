"""The provisioning scripts, run for real up to what needs a machine of their own.

Each runs in a mount namespace whose /opt and /tmp are empty: git, awk and grep are real; what would
change a host, fetch or start something is a stand-in that writes down how it was called.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml

from daemonset.tools import render

VAGRANT = render.ROOT / "vagrant"
SERVER, NODE = "192.168.56.10", "192.168.56.11"
# Writes its name, words and the environment of k3s' installer down.
RECORDER = """#!/bin/sh
{ for word in "${0##*/}" "$@"; do printf '%s\\0' "$word"; done
  printf '%s|%s|%s\\n' "$INSTALL_K3S_EXEC" "$K3S_TOKEN" "$INSTALL_K3S_VERSION"; } >>/run/told/calls
"""
ANSWERS = {
    "apt-get": "",
    "make": "",
    "sleep": "",
    "ip": f"""
echo '1: lo    inet 127.0.0.1/8 scope host lo'
echo '2: eth0    inet 10.0.2.15/24 brd 10.0.2.255 scope global eth0'
echo '3: eth1    inet {SERVER}0/24 brd 192.168.56.255 scope global eth1'
echo '4: eth2    inet {SERVER}/24 brd 192.168.56.255 scope global eth2'
""",
    # The installer that it "fetches" is one more recorder, which leaves a k3s behind.
    "curl": """
cat /run/told/installer >/tmp/k3s-install.sh
""",
}
INSTALLER = RECORDER + "cp /run/told/k3s /run/told/bin/k3s\n"
K3S = """
case " $* " in *" get nodes "*) n=$(cat /run/told/nodes); n=$((n + 1)); echo $n >/run/told/nodes
    for i in $(seq $n); do echo "node$i   Ready    <none>   1m   v1.34.2+k3s1"; done ;; esac
"""


@dataclass(frozen=True, slots=True)
class Ran:
    code: int
    said: str
    calls: list[list[str]]
    settings: list[str] = field(default_factory=list)  # beside them: EXEC|TOKEN|VERSION

    def of(self, name: str) -> list[list[str]]:
        return [each for each in self.calls if each[0] == name]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A commit of what the scripts use, in a bundle as the Vagrantfiles make it."""
    folder = tmp_path_factory.mktemp("bundle")
    for name in ("Makefile", "daemonset/manifests", "daemonset/samples"):
        source, to = render.ROOT / name, folder / "tree" / name
        to.parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if source.is_dir() else shutil.copy)(source, to)
    git = ["git", "-C", str(folder / "tree"), "-c", "user.name=t", "-c", "user.email=t@localhost"]
    for words in (
        ["init", "--quiet"],
        ["add", "."],
        ["commit", "--quiet", "--no-gpg-sign", "--message", "all"],
        ["bundle", "create", "--quiet", str(folder / "tulle.bundle"), "HEAD"],
    ):
        subprocess.run([*git, *words], check=True, capture_output=True)
    return folder / "tulle.bundle"


class Machine:
    """A host whose folders /opt and /tmp are its own, and whose other commands are recorders."""

    def __init__(self, folder: Path, bundle: Path) -> None:
        self.told, self.bundle = folder / "told", bundle
        (self.told / "bin").mkdir(parents=True)
        for name, answer in ANSWERS.items():
            self.program(f"bin/{name}", RECORDER + answer)
        self.program("k3s", RECORDER + K3S)
        self.program("installer", INSTALLER)
        (self.told / "nodes").write_text("0")

    def program(self, name: str, text: str) -> None:
        (self.told / name).write_text(text)
        (self.told / name).chmod(0o755)

    def run(self, *scripts: Path | str, **environment: str) -> Ran:
        """Run scripts one after the other; those that are text are paths inside."""
        steps = [
            "mount -t tmpfs tmpfs /run && mkdir /run/told /run/vagrant",
            f"mount --bind {shlex.quote(str(self.told))} /run/told",
            f"mount --bind {shlex.quote(str(VAGRANT))} /run/vagrant",
            f"cat {shlex.quote(str(self.bundle))} >/run/tulle.bundle",
            "mount -t tmpfs tmpfs /tmp && mount -t tmpfs tmpfs /opt",
            "mv /run/tulle.bundle /tmp/ && echo image >/tmp/image.tar && cd /",
        ]
        for each in scripts:
            inside = each if isinstance(each, str) else f"/run/vagrant/{each.relative_to(VAGRANT)}"
            steps.append(f"sh {inside}")
        steps.append("find /opt/tulle -maxdepth 1 >/run/told/opt 2>/dev/null || true")
        entered = ["unshare", "--mount"] + (["--map-root-user"] if os.geteuid() else [])
        done = subprocess.run(
            [*entered, "sh", "-euc", "\n".join(steps)],
            env={"PATH": "/run/told/bin:/usr/sbin:/usr/bin:/sbin:/bin", **environment},
            capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        record = self.told / "calls"
        lines = record.read_text().splitlines() if record.exists() else []
        return Ran(
            done.returncode,
            done.stdout + done.stderr,
            [line.split("\0")[:-1] for line in lines],
            [line.split("\0")[-1] for line in lines],
        )

    def checkout(self) -> set[str]:
        return {Path(line).name for line in (self.told / "opt").read_text().splitlines()}


@pytest.fixture
def machine(tmp_path: Path, bundle: Path) -> Machine:
    return Machine(tmp_path, bundle)


def test_a_host_gets_the_last_commit_and_runs_it(machine: Machine) -> None:
    ran = machine.run(VAGRANT / "provision.sh")
    assert ran.code == 0, ran.said
    assert ran.calls == [
        ["apt-get", "update"],
        ["apt-get", "install", "-y", "git", "make", "python3"],
        ["make", "-C", "/opt/tulle", "run"],
    ]
    assert {"Makefile", "daemonset"} <= machine.checkout()


CLUSTER = VAGRANT / "cluster/provision.sh"
SETTINGS = {"SERVER": SERVER, "INSTALL_K3S_VERSION": "v1.34.2+k3s1"}


def test_a_server_gets_k3s_the_image_and_the_checkout(machine: Machine) -> None:
    ran = machine.run(CLUSTER, ROLE="server", ADDRESS=SERVER, **SETTINGS)
    assert ran.code == 0, ran.said
    (fetched,) = ran.of("curl")
    assert fetched[1:] == ["-sfL", "https://get.k3s.io", "-o", "/tmp/k3s-install.sh"]
    flags, token, version = ran.settings[ran.calls.index(["k3s-install.sh"])].split("|")
    assert flags == (
        "server --disable traefik --disable metrics-server --write-kubeconfig-mode 0644 "
        f"--node-ip {SERVER} --flannel-iface eth2"  # not the one that begins alike
    )
    assert (token, version) == ("tulle-on-a-private-network", "v1.34.2+k3s1")
    assert ran.of("k3s") == [["k3s", "ctr", "images", "import", "/tmp/image.tar"]]
    assert "daemonset" in machine.checkout()


def test_a_node_joins_it_and_needs_no_checkout(machine: Machine) -> None:
    ran = machine.run(CLUSTER, ROLE="agent", ADDRESS=SERVER, **SETTINGS)
    assert ran.code == 0, ran.said
    flags = ran.settings[ran.calls.index(["k3s-install.sh"])].split("|")[0]
    assert flags.startswith(f"agent --server https://{SERVER}:6443 --node-ip")
    assert machine.checkout() == set()


def test_provisioning_again_installs_nothing_twice(machine: Machine) -> None:
    ran = machine.run(CLUSTER, CLUSTER, ROLE="server", ADDRESS=SERVER, **SETTINGS)
    assert ran.code == 0, ran.said
    assert len(ran.of("k3s-install.sh")) == 1
    assert len(ran.of("k3s")) == 2, "a newer image is imported all the same"


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"ROLE": "master", "ADDRESS": SERVER}, "server or agent, not master"),
        ({"ROLE": "agent", "ADDRESS": NODE}, f"no interface has the address {NODE}"),
        ({"ROLE": "agent"}, "our own"),
    ],
    ids=["role", "address", "nothing"],
)
def test_a_wrong_setting_installs_nothing(
    machine: Machine, environment: dict[str, str], said: str
) -> None:
    ran = machine.run(CLUSTER, **SETTINGS, **environment)
    assert ran.code != 0
    assert said in ran.said
    assert not ran.of("k3s-install.sh")
    assert not ran.of("k3s")


def test_an_installer_that_is_not_to_be_had_ends_it(machine: Machine) -> None:
    machine.program("bin/curl", RECORDER + "exit 22\n")
    ran = machine.run(CLUSTER, ROLE="server", ADDRESS=SERVER, **SETTINGS)
    assert ran.code == 22
    assert not ran.of("k3s")


def test_the_mesh_is_installed_when_all_nodes_are_ready(machine: Machine) -> None:
    settings = {"ROLE": "server", "ADDRESS": SERVER, **SETTINGS}
    ran = machine.run(CLUSTER, "/tmp/install.sh", **settings)
    assert ran.code == 0, ran.said
    kubectl = [each[2:] for each in ran.of("k3s") if each[1] == "kubectl"]
    nodes = [at for at, words in enumerate(kubectl) if words[:2] == ["get", "nodes"]]
    assert nodes == [0, 1, 2], "asked until three are ready"
    applied = [words[-1] for words in kubectl if words[0] == "apply"]
    assert applied == [
        "/opt/tulle/daemonset/manifests/overlays/k3s",
        "/opt/tulle/daemonset/samples/bookinfo.yaml",
    ]
    for path in applied:
        assert (render.ROOT / path.removeprefix("/opt/tulle/")).exists()
    waited = {words[words.index("status") + 1] for words in kubectl if "status" in words}
    assert waited == wanted_workloads()


def wanted_workloads() -> set[str]:
    """Those of the mesh and of the sample, in the words of `rollout status`."""
    sample = (render.ROOT / "daemonset/samples/bookinfo.yaml").read_text()
    mesh = (render.MANIFESTS / "base/tulle.yaml").read_text()
    return {
        f"{each['kind'].lower()}/{each['metadata']['name']}"
        for each in (*yaml.safe_load_all(sample), *yaml.safe_load_all(mesh))
        if each["kind"] in ("Deployment", "DaemonSet")
    }


def test_the_vagrantfiles_give_what_the_scripts_ask_for() -> None:
    """Files that are copied in, and settings that are handed over."""
    for folder in (VAGRANT, VAGRANT / "cluster"):
        text = (folder / "Vagrantfile").read_text()
        script = (folder / "provision.sh").read_text()
        given = set(re.findall(r'destination: "(/tmp/[\w.]+)"', text))
        assert {
            f"/tmp/{name}" for name in re.findall(r"/tmp/(\w+\.(?:bundle|tar))", script)
        } <= given
        asked = set(re.findall(r"\$\{(\w+):\?", script))
        assert asked <= set(re.findall(r'"(\w+)" =>', text)), json.dumps(sorted(asked))
