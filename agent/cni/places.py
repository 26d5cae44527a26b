"""The folders of the container runtime: network configurations, and the programs of plugins.

They come from the operator; else from the runtime, by CRI or by its configuration file; else from
what is known of the platform. Nothing is made: a folder that is not there is not one of ours.
"""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CONFIG_BYTES_MAX = 1024 * 1024
IMPORTS_MAX = 32  # files that a runtime's configuration consists of

DEFAULT_CONF = "/etc/cni/net.d"
DEFAULT_BIN = "/opt/cni/bin"


@dataclass(frozen=True, slots=True)
class Platform:
    """A kind of node, known by a path that only it has."""

    name: str
    mark: str
    conf: str
    bins: tuple[str, ...]
    runtime: str = ""  # its containerd configuration, where that is at a place of its own


_RANCHER = "/var/lib/rancher"
_SNAP = "/var/snap/microk8s"
_OPENSHIFT = "/var/lib/cni/bin"
# In this order: the first whose mark is there. `bins` likewise, of those that can be written to.
PLATFORMS = (
    Platform(
        "k3s",
        f"{_RANCHER}/k3s/agent",
        f"{_RANCHER}/k3s/agent/etc/cni/net.d",
        # The second is that of releases before October 2024.
        (f"{_RANCHER}/k3s/data/cni", f"{_RANCHER}/k3s/data/current/bin"),
        f"{_RANCHER}/k3s/agent/etc/containerd/config.toml",
    ),
    Platform(
        "rke2",
        f"{_RANCHER}/rke2/agent",
        DEFAULT_CONF,
        (DEFAULT_BIN,),
        f"{_RANCHER}/rke2/agent/etc/containerd/config.toml",
    ),
    Platform(
        "microk8s",
        f"{_SNAP}/current/args",
        f"{_SNAP}/current/args/cni-network",
        (f"{_SNAP}/current/opt/cni/bin",),
        f"{_SNAP}/current/args/containerd.toml",
    ),
    Platform("gke", "/home/kubernetes/bin", DEFAULT_CONF, ("/home/kubernetes/bin",)),
    # CRI-O's folder there, where Multus is the primary: ours goes around it.
    Platform("openshift", "/etc/kubernetes/cni/net.d", "/etc/kubernetes/cni/net.d", (_OPENSHIFT,)),
    Platform("minikube", "/var/lib/minikube", "/etc/cni/net.d", (DEFAULT_BIN,)),
    Platform("talos", "/system/state", DEFAULT_CONF, (DEFAULT_BIN,)),
    Platform("bottlerocket", "/.bottlerocket", DEFAULT_CONF, (DEFAULT_BIN,)),
    Platform("generic", "/", DEFAULT_CONF, (DEFAULT_BIN, "/usr/libexec/cni", "/usr/lib/cni")),
)
CONTAINERD_CONFIG = "/etc/containerd/config.toml"
CRIO_FOLDER = "/etc/crio"
CRIO_CONFIGS = (f"{CRIO_FOLDER}/crio.conf", f"{CRIO_FOLDER}/crio.conf.d")


@dataclass(frozen=True, slots=True)
class Told:
    """Folders that a runtime names, as paths of the host; empty: it does not."""

    conf: str = ""
    bins: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Places:
    conf: Path  # as we see them
    bin: Path
    source: str  # for people
    is_told: bool = False  # the runtime names the programs' folder
    # CRI-O deletes a pod by the configuration that it was made with, also after that has gone.
    keeps_calls: bool = False


def platform_of(prefix: Path) -> Platform:
    return next(each for each in PLATFORMS if seen(prefix, each.mark).exists())


def seen(prefix: Path, path: str) -> Path:
    """A path of the host, as it is below our view of its root."""
    return prefix / path.lstrip("/")


def find(
    prefix: Path, conf: Path | None = None, bin_folder: Path | None = None, cri: Told | None = None
) -> Places:
    """The folders on the host whose root we see at `prefix`. `conf` and `bin_folder` are the
    operator's, as paths of the host."""
    platform = platform_of(prefix)
    told, source = cri or Told(), "the runtime, by CRI"
    if not told.conf and not told.bins:
        told, platform = _configured(prefix, platform)
        source = "the runtime's configuration"
    if not told.conf and not told.bins:
        source = f"the platform, {platform.name}"
    found_conf = seen(prefix, str(conf or told.conf or platform.conf))
    bins = [seen(prefix, each) for each in told.bins or platform.bins]
    usable = (each for each in bins if os.access(each, os.W_OK))
    found_bin = seen(prefix, str(bin_folder)) if bin_folder else next(usable, bins[0])
    named = "flags" if conf and bin_folder else source
    is_told = bool(told.bins) and bin_folder is None
    keeps_calls = seen(prefix, CRIO_FOLDER).exists()
    return Places(found_conf, found_bin, named, is_told, keeps_calls)


def _configured(prefix: Path, platform: Platform) -> tuple[Told, Platform]:
    """Folders that a file of the runtime names, and the platform whose folders count otherwise."""
    for each in (platform.runtime, CONTAINERD_CONFIG):
        config = _containerd(prefix, each) if each else {}
        told = of_containerd(config)
        if told.conf or told.bins:
            return told, platform
        if config and each == platform.runtime:
            # Made by the distribution, which leaves them out for another network than its own, as
            # k3s without flannel: containerd's defaults hold then.
            return Told(), PLATFORMS[-1]
    return of_crio(_crio(prefix)), platform


def of_cri_status(text: str) -> Told:
    """From `info["config"]` of a verbose Status of containerd."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return Told()
    cni = _table(found, "cni")
    return Told(_path(cni.get("confDir")), _paths(cni.get("binDirs"), cni.get("binDir")))


def of_containerd(config: Mapping[str, Any]) -> Told:
    """From config.toml of version 1, 2 or 3."""
    plugins = _table(config, "plugins")
    for name in ("io.containerd.cri.v1.runtime", "io.containerd.grpc.v1.cri", "cri"):
        cni = _table(_table(plugins, name), "cni")
        told = Told(_path(cni.get("conf_dir")), _paths(cni.get("bin_dirs"), cni.get("bin_dir")))
        if told.conf or told.bins:
            return told
    return Told()


def of_crio(config: Mapping[str, Any]) -> Told:
    network = _table(_table(config, "crio"), "network")
    bins = _paths(network.get("plugin_dirs"), network.get("plugin_dir"))
    return Told(_path(network.get("network_dir")), bins)


def _containerd(prefix: Path, path: str) -> dict[str, Any]:
    """The file, with those that it imports over it, and theirs over those, as containerd does."""
    config: dict[str, Any] = {}
    waiting, read = [path], set[str]()
    while waiting and len(read) < IMPORTS_MAX:
        found = waiting.pop(0)
        if found in read:
            continue
        read.add(found)
        fresh = _toml(seen(prefix, found))
        config = merged(config, fresh)
        waiting += _imports(prefix, found, fresh.get("imports"))
    return config


def _imports(prefix: Path, path: str, patterns: Any) -> list[str]:
    """Paths of the host that a file at `path` imports."""
    found: list[Path] = []
    for pattern in (patterns if isinstance(patterns, list) else [])[:IMPORTS_MAX]:
        absolute = os.path.normpath(Path(path).parent / str(pattern)).lstrip("/")
        found += sorted(prefix.glob(absolute))[:IMPORTS_MAX] if absolute else []
    return [f"/{each.relative_to(prefix)}" for each in found]


def _crio(prefix: Path) -> dict[str, Any]:
    """Every file of the folder counts for CRI-O, whatever its name: OpenShift's is `00-default`."""
    config = _toml(seen(prefix, CRIO_CONFIGS[0]))
    files = (each for each in seen(prefix, CRIO_CONFIGS[1]).rglob("*") if each.is_file())
    for each in sorted(files)[:IMPORTS_MAX]:
        config = merged(config, _toml(each))
    return config


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    found = dict(below)
    for name, value in above.items():
        known = found.get(name)
        if isinstance(known, dict) and isinstance(value, dict):
            value = merged(known, value)
        found[name] = value
    return found


def _toml(path: Path) -> dict[str, Any]:
    """A file that is not there, or not TOML, says nothing."""
    try:
        if path.stat().st_size > CONFIG_BYTES_MAX:
            return {}
        return tomllib.loads(path.read_text())
    except (OSError, ValueError, RecursionError):
        return {}


def _table(value: Any, name: str) -> Mapping[str, Any]:
    found = value.get(name) if isinstance(value, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def _path(value: Any) -> str:
    return value if isinstance(value, str) and value.startswith("/") else ""


def _paths(values: Any, value: Any) -> tuple[str, ...]:
    many = values if isinstance(values, list) else []
    return tuple(dict.fromkeys(filter(None, map(_path, [*many, value]))))


def tables() -> Iterator[tuple[str, str, str]]:
    """The rows of docs/cni.md: platform, configurations, programs."""
    for each in PLATFORMS:
        yield each.name, each.conf, ", ".join(each.bins)
