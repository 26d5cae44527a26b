"""Folders of the runtime: told by flags, by the runtime, or known of the platform."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import yaml

from agent.cni.places import PLATFORMS, Told, find, of_cri_status, platform_of, tables

ROOT = Path(__file__).parents[4]

V2 = """
version = 2
imports = ["/etc/containerd/conf.d/*.toml"]
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/opt/two/bin"
conf_dir = "/etc/two"
"""
V3 = """
version = 3
[plugins.'io.containerd.cri.v1.runtime'.cni]
bin_dirs = ["/usr/three", "/opt/three"]
conf_dir = '/etc/three'
"""
V1 = """
[plugins.cri.cni]
bin_dir = "/opt/one"
conf_dir = "/etc/one"
"""
CRIO = """
[crio.network]
network_dir = "/etc/four"
plugin_dirs = ["/opt/four"]
"""


def host(root: Path, **files: str) -> Path:
    """A host's root with files, `/` in a name written as __."""
    for name, content in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return root


@pytest.mark.parametrize("platform", PLATFORMS, ids=lambda each: each.name)
def test_a_platform_is_known_by_its_mark(tmp_path: Path, platform: object) -> None:
    found = next(each for each in PLATFORMS if each == platform)
    for path in (found.mark, found.conf, found.bins[-1]):
        (tmp_path / path.lstrip("/")).mkdir(parents=True, exist_ok=True)
    assert platform_of(tmp_path) == found
    places = find(tmp_path)
    assert places.conf == tmp_path / found.conf.lstrip("/")
    assert places.bin == tmp_path / found.bins[-1].lstrip("/"), "the only one that is there"
    assert found.name in places.source


def test_the_page_has_the_platforms() -> None:
    page = (ROOT / "docs" / "cni.md").read_text()
    for name, conf, bins in tables():
        written = ", ".join(f"`{each}`" for each in bins.split(", "))
        assert f"| {name} | `{conf}` | {written} |" in page


@pytest.mark.parametrize("name", ["k3s", "gke", "openshift", "generic"])
def test_the_chart_has_the_same_folders(name: str) -> None:
    chart = yaml.safe_load((ROOT / f"daemonset/chart/platforms/{name}.yaml").read_text())["cni"]
    found = next(each for each in PLATFORMS if each.name == name)
    assert (chart["confDir"], chart["binDir"]) == (found.conf, found.bins[0])


@pytest.mark.parametrize(
    ("text", "name"), [(V1, "one"), (V2, "two"), (V3, "three")], ids=["v1", "v2", "v3"]
)
def test_containerd_is_asked_by_its_file(tmp_path: Path, text: str, name: str) -> None:
    (tmp_path / "opt" / name / "bin").mkdir(parents=True)
    places = find(host(tmp_path, **{"etc__containerd__config.toml": text}))
    assert places.conf == tmp_path / "etc" / name
    assert places.bin.relative_to(tmp_path / "opt").parts[0] == name
    assert places.source == "the runtime's configuration"


def test_an_import_counts_more(tmp_path: Path) -> None:
    over = '[plugins."io.containerd.grpc.v1.cri".cni]\nconf_dir = "/etc/over"\n'
    files = {"etc__containerd__config.toml": V2, "etc__containerd__conf.d__9.toml": over}
    places = find(host(tmp_path, **files))
    assert places.conf == tmp_path / "etc/over"
    assert places.bin == tmp_path / "opt/two/bin"


def test_k3s_has_its_own_file(tmp_path: Path) -> None:
    file = "var__lib__rancher__k3s__agent__etc__containerd__config.toml"
    places = find(host(tmp_path, **{file: V3, "etc__containerd__config.toml": V2}))
    assert places.conf == tmp_path / "etc/three"


def test_crio_is_asked_by_its_files(tmp_path: Path) -> None:
    places = find(host(tmp_path, **{"etc__crio__crio.conf.d__10.conf": CRIO}))
    assert (places.conf, places.bin) == (tmp_path / "etc/four", tmp_path / "opt/four")
    assert places.keeps_calls


@pytest.mark.parametrize(
    "text",
    ["", "not toml", "plugins = 7", '[plugins.cri.cni]\nconf_dir = "relative"', "x" * 2**21],
)
def test_a_file_that_says_nothing_leaves_the_platform(tmp_path: Path, text: str) -> None:
    places = find(host(tmp_path, **{"etc__containerd__config.toml": text}))
    assert places.conf == tmp_path / "etc/cni/net.d"
    assert places.source == "the platform, generic"


def test_flags_and_cri_come_first(tmp_path: Path) -> None:
    host(tmp_path, **{"etc__containerd__config.toml": V2})
    cri = of_cri_status(json.dumps({"cni": {"confDir": "/etc/cri", "binDir": "/opt/cri"}}))
    assert cri == Told("/etc/cri", ("/opt/cri",))
    assert find(tmp_path, cri=cri).conf == tmp_path / "etc/cri"
    both = find(tmp_path, Path("/a"), Path("/b"), cri)
    assert (both.conf, both.bin, both.source) == (tmp_path / "a", tmp_path / "b", "flags")
    assert find(tmp_path, Path("/a")).bin == tmp_path / "opt/two/bin"
    assert find(tmp_path, Path("/a")).is_told
    assert not both.is_told


@pytest.mark.parametrize("text", ["", "[]", "7", '{"cni": 7}', '{"cni": {"binDirs": [7]}}'])
def test_a_status_that_says_nothing(text: str) -> None:
    assert of_cri_status(text) == Told()


@pytest.mark.skipif(os.geteuid() != 0, reason="a folder that root cannot write to is on no disk")
def test_a_folder_that_cannot_be_written_to_is_passed_over(tmp_path: Path) -> None:
    config = V3.replace("/usr/three", "/proc/three")
    (tmp_path / "opt/three").mkdir(parents=True)
    places = find(host(tmp_path, **{"etc__containerd__config.toml": config}))
    assert places.bin == tmp_path / "opt/three"
