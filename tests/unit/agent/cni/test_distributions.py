"""Kubernetes distributions as trees of files: where their runtime looks, ours goes, and first.

The trees are what each distribution's own sources and documents say that a node has; none of them
was a running node.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml

from agent.cni.conflist import PLUGIN
from agent.cni.keeper import Keeper
from agent.cni.places import PLATFORMS, Told, find, of_cri_status, platform_of
from agent.cri.client import SOCKETS
from tests.support.clock import FakeClock

CHART = Path(__file__).parents[4] / "daemonset/chart/platforms"
RANCHER, SNAP = "/var/lib/rancher", "/var/snap/microk8s"

FLANNEL = """
{"name": "cbr0", "cniVersion": "1.0.0",
 "plugins": [{"type": "flannel"}, {"type": "portmap"}, {"type": "bandwidth"}]}
"""
CALICO = """
{"name": "k8s-pod-network", "cniVersion": "0.3.1",
 "plugins": [{"type": "calico"}, {"type": "portmap"}]}
"""
CILIUM = """
{"cniVersion": "0.3.1", "name": "cilium", "plugins": [{"type": "cilium-cni"}]}
"""
# One plugin, no list: the runtime takes it as it is, we wrap it.
MULTUS = """
{"cniVersion": "0.3.1", "name": "multus-cni-network", "type": "multus-shim",
 "clusterNetwork": "/host/run/multus/cni/net.d/10-ovn-kubernetes.conf"}
"""
K3S_V2 = """
version = 2
[plugins."io.containerd.internal.v1.opt"]
path = "/var/lib/rancher/k3s/agent/containerd"
[plugins."io.containerd.grpc.v1.cri"]
enable_selinux = false
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/var/lib/rancher/k3s/data/cni"
conf_dir = "/var/lib/rancher/k3s/agent/etc/cni/net.d"
"""
K3S_V3 = """
version = 3
imports = ["/var/lib/rancher/k3s/agent/etc/containerd/config-v3.toml.d/*.toml"]
[plugins.'io.containerd.cri.v1.runtime'.cni]
bin_dirs = ["/var/lib/rancher/k3s/data/cni"]
conf_dir = "/var/lib/rancher/k3s/agent/etc/cni/net.d"
"""
# As k3s writes it with --flannel-backend=none, and as RKE2 does: the table is left out.
NO_CNI = """
version = 3
[plugins.'io.containerd.cri.v1.runtime']
enable_selinux = true
[plugins.'io.containerd.cri.v1.images'.pinned_images]
sandbox = "index.docker.io/rancher/mirrored-pause:3.6"
"""
NVIDIA = """
version = 2
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.nvidia]
runtime_type = "io.containerd.runc.v2"
"""
MICROK8S = """
version = 2
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/var/snap/microk8s/current/opt/cni/bin"
conf_dir = "/var/snap/microk8s/current/args/cni-network"
"""
K0S = 'version = 3\nimports = ["/run/k0s/containerd-cri.toml"]\n'
K0S_CRI = """
version = 3
[plugins.'io.containerd.cri.v1.runtime'.cni]
bin_dirs = ["/opt/cni/bin"]
conf_dir = "/etc/cni/net.d"
"""
GKE = """
version = 2
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/home/kubernetes/bin"
conf_dir = "/etc/cni/net.d"
"""
OPENSHIFT = """
[crio.network]
network_dir = "/etc/kubernetes/cni/net.d/"
plugin_dirs = ["/var/lib/cni/bin", "/usr/libexec/cni"]
"""


@dataclass(frozen=True, slots=True)
class Host:
    """A node's files, and what its runtime would do with them."""

    files: Mapping[str, str]  # configurations of the runtime
    runtime: tuple[str, str]  # where it reads configurations, and where it finds programs
    primary: tuple[str, str]  # name and text of the primary CNI's configuration
    ours: str = "00-tulle.conflist"
    folders: tuple[str, ...] = ()  # marks of the distribution
    chart: str = ""  # the platform that the chart has for it
    socket: str = "/run/containerd/containerd.sock"
    missing: tuple[str, ...] = field(default=())  # folders that do not exist


CUSTOMARY = ("/etc/cni/net.d", "/opt/cni/bin")
HOSTS = {
    "k3s": Host(
        {f"{RANCHER}/k3s/agent/etc/containerd/config.toml": K3S_V3},
        (f"{RANCHER}/k3s/agent/etc/cni/net.d", f"{RANCHER}/k3s/data/cni"),
        ("10-flannel.conflist", FLANNEL),
        chart="k3s", socket="/run/k3s/containerd/containerd.sock",
    ),
    "k3s, containerd 1": Host(
        {f"{RANCHER}/k3s/agent/etc/containerd/config.toml": K3S_V2},
        (f"{RANCHER}/k3s/agent/etc/cni/net.d", f"{RANCHER}/k3s/data/cni"),
        ("10-flannel.conflist", FLANNEL),
        chart="k3s", socket="/run/k3s/containerd/containerd.sock",
    ),
    "k3s without flannel": Host(
        {f"{RANCHER}/k3s/agent/etc/containerd/config.toml": NO_CNI}, CUSTOMARY,
        ("05-cilium.conflist", CILIUM),
        # Left behind by the time with flannel, and never looked at.
        folders=(f"{RANCHER}/k3s/agent/etc/cni/net.d", f"{RANCHER}/k3s/data/cni"),
        chart="rke2", socket="/run/k3s/containerd/containerd.sock",
    ),
    "rke2": Host(
        {f"{RANCHER}/rke2/agent/etc/containerd/config.toml": NO_CNI}, CUSTOMARY,
        ("10-canal.conflist", CALICO),
        folders=(f"{RANCHER}/rke2/agent",),
        chart="rke2", socket="/run/k3s/containerd/containerd.sock",
    ),
    "microk8s": Host(
        {f"{SNAP}/current/args/containerd.toml": MICROK8S},
        (f"{SNAP}/current/args/cni-network", f"{SNAP}/current/opt/cni/bin"),
        ("10-calico.conflist", CALICO),
        chart="microk8s", socket="/var/snap/microk8s/common/run/containerd.sock",
    ),
    "gke": Host(
        {"/etc/containerd/config.toml": GKE}, ("/etc/cni/net.d", "/home/kubernetes/bin"),
        ("10-containerd-net.conflist", CALICO), chart="gke", missing=("/opt/cni/bin",),
    ),
    "openshift": Host(
        {"/etc/crio/crio.conf.d/00-default": OPENSHIFT},
        ("/etc/kubernetes/cni/net.d", "/var/lib/cni/bin"),
        ("00-multus.conf", MULTUS), "00-00-tulle.conflist",
        # Multus' own: of networks by name, and of the network that it delegates to.
        folders=("/etc/cni/multus/net.d", "/run/multus/cni/net.d", "/etc/cni/net.d"),
        chart="openshift", socket="/run/crio/crio.sock",
    ),
    "cri-o": Host(
        {"/etc/crio/crio.conf": "[crio.network]\nnetwork_dir = '/etc/old'\n",
         "/etc/crio/crio.conf.d/10-crio.conf": "[crio.image]\nsignature_policy = '/p'\n",
         "/etc/crio/crio.conf.d/20/network": "[crio.network]\nnetwork_dir = '/etc/cni/net.d/'\n"},
        CUSTOMARY, ("10-calico.conflist", CALICO), socket="/run/crio/crio.sock",
    ),
    "kubeadm": Host(
        {"/etc/containerd/config.toml": NO_CNI, "/etc/containerd/conf.d/99-nvidia.toml": NVIDIA},
        CUSTOMARY, ("10-calico.conflist", CALICO), chart="generic",
    ),
    "eks": Host(
        {"/etc/containerd/config.toml": 'version = 3\n'}, CUSTOMARY,
        ("10-aws.conflist", CALICO), chart="eks",
    ),
    "aks": Host(
        {"/etc/containerd/config.toml": 'version = 2\noom_score = -999\n'}, CUSTOMARY,
        ("05-cilium.conflist", CILIUM), chart="aks",
    ),
    "kind": Host(
        {"/etc/containerd/config.toml": NO_CNI}, CUSTOMARY,
        ("10-kindnet.conflist", CALICO), folders=("/kind",), chart="kind",
    ),
    "minikube": Host(
        {}, CUSTOMARY, ("1-k8s.conflist", CALICO), folders=("/var/lib/minikube",),
        socket="/run/cri-dockerd.sock",
    ),
    "talos": Host(
        {"/etc/containerd/config.toml": 'version = 3\nimports = ["/etc/cri/conf.d/cri.toml"]\n',
         "/etc/cri/conf.d/cri.toml": K0S_CRI},
        CUSTOMARY, ("10-flannel.conflist", FLANNEL), folders=("/system/state",), chart="generic",
    ),
    "bottlerocket": Host(
        {"/etc/containerd/config.toml": NO_CNI}, CUSTOMARY,
        ("10-aws.conflist", CALICO), folders=("/.bottlerocket",), chart="eks",
    ),
    "k0s": Host(
        {"/etc/k0s/containerd.toml": K0S, "/run/k0s/containerd-cri.toml": K0S_CRI}, CUSTOMARY,
        ("10-kuberouter.conflist", CALICO), socket="/run/k0s/containerd.sock",
    ),
}  # fmt: skip


def under(root: Path, path: str) -> Path:
    return root / path.lstrip("/")


def node(root: Path, host: Host) -> Path:
    """The tree of a host, with its primary CNI installed where its runtime looks."""
    for path, text in host.files.items():
        under(root, path).parent.mkdir(parents=True, exist_ok=True)
        under(root, path).write_text(text)
    standard = set(CUSTOMARY) - set(host.missing)
    for path in (*host.runtime, *host.folders, *standard):
        under(root, path).mkdir(parents=True, exist_ok=True)
    conf, programs = (under(root, each) for each in host.runtime)
    name, text = host.primary
    (conf / name).write_text(text)
    found = json.loads(text)
    for each in found.get("plugins", [found]):
        (programs / each["type"]).write_bytes(b"\x7fELF")
    (root / "tulle-cni").write_bytes(b"\x7fELF ours")
    return root


def chosen_by_runtime(conf: Path) -> Path:
    """The file that containerd and CRI-O take."""
    endings = (".conf", ".conflist", ".json")
    return min(each for each in conf.iterdir() if each.suffix in endings)


@pytest.mark.parametrize("host", HOSTS.values(), ids=HOSTS)
def test_ours_is_what_the_runtime_takes(tmp_path: Path, host: Host) -> None:
    root = node(tmp_path, host)
    keeper = Keeper(find(root), root / "tulle-cni", lambda: {"type": PLUGIN}, FakeClock())
    keeper.look()
    assert keeper.problem == ""
    conf, programs = (under(root, each) for each in host.runtime)
    taken = chosen_by_runtime(conf)
    assert taken.name == host.ours
    kinds = [each["type"] for each in json.loads(taken.read_text())["plugins"]]
    assert kinds[-1] == PLUGIN
    for each in kinds:
        assert (programs / each).exists(), f"the runtime finds no {each}"
    before = (conf / host.primary[0]).read_text()
    assert before == host.primary[1], "the primary's file stays as it is"
    keeper.uninstall()
    assert chosen_by_runtime(conf).name == host.primary[0]


@pytest.mark.parametrize("name", [name for name, host in HOSTS.items() if host.chart])
def test_the_chart_has_the_runtimes_folders_and_socket(name: str) -> None:
    host = HOSTS[name]
    platform = yaml.safe_load((CHART / f"{host.chart}.yaml").read_text())
    assert (platform["cni"]["confDir"], platform["cni"]["binDir"]) == host.runtime
    assert platform["agent"]["criSocket"] == host.socket


@pytest.mark.parametrize("host", HOSTS.values(), ids=HOSTS)
def test_the_runtime_is_looked_for_at_its_socket(host: Host) -> None:
    assert Path(host.socket) in SOCKETS


def test_every_platform_has_a_tree(tmp_path: Path) -> None:
    found = {platform_of(node(tmp_path / name, host)).name for name, host in HOSTS.items()}
    assert found == {each.name for each in PLATFORMS}
    assert {path.stem for path in CHART.glob("*.yaml")} == {
        host.chart for host in HOSTS.values() if host.chart
    }


# As CRI-O 1.34 answers: its own tables, nothing of CNI.
CRIO_STATUS = json.dumps({"sandboxImage": "pause", "crio": {"default_runtime": "crun"}})
CONTAINERD_STATUS = json.dumps(
    {
        "cni": {"binDir": "", "binDirs": ["/opt/a", "/opt/b"], "confDir": "/etc/a"},
        "containerdEndpoint": "/run/containerd/containerd.sock",
    }
)
CONTAINERD_1_STATUS = json.dumps({"cni": {"binDir": "/opt/a", "confDir": "/etc/a"}})


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (CRIO_STATUS, Told()),
        (CONTAINERD_STATUS, Told("/etc/a", ("/opt/a", "/opt/b"))),
        (CONTAINERD_1_STATUS, Told("/etc/a", ("/opt/a",))),
    ],
    ids=["CRI-O", "containerd 2", "containerd 1"],
)
def test_a_runtimes_status(text: str, told: Told) -> None:
    assert of_cri_status(text) == told


def test_crio_is_asked_by_its_files_where_its_status_is_silent(tmp_path: Path) -> None:
    root = node(tmp_path, HOSTS["openshift"])
    places = find(root, cri=of_cri_status(CRIO_STATUS))
    assert (places.conf, places.bin) == tuple(under(root, e) for e in HOSTS["openshift"].runtime)
    assert places.keeps_calls


def test_imports_of_imports_count_and_a_circle_ends(tmp_path: Path) -> None:
    files = {
        "/etc/containerd/config.toml": 'imports = ["a.toml"]',
        "/etc/containerd/a.toml": 'imports = ["b.toml"]',
        "/etc/containerd/b.toml": 'imports = ["a.toml", "config.toml", "", 7]\n'
        + K0S_CRI.replace("/etc/cni/net.d", "/etc/far").replace("version = 3", ""),
    }
    root = node(tmp_path, Host(files, CUSTOMARY, ("10-a.conflist", CALICO)))
    assert find(root).conf == root / "etc/far"
