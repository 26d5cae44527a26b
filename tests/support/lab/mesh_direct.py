"""The whole mesh with two services, and what is known of connections that the kernel carries."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from agent.fetch import request
from agent.lab import changes
from tests.support.lab.mesh_bed import PORT, Bed, mesh_bed, soon, speak

SERVICES = """
apiVersion: v1
kind: Service
metadata: {name: nearby, namespace: mesh}
spec:
  ipFamilyPolicy: RequireDualStack
  ipFamilies: [IPv4, IPv6]
  selector: {app: near}
  ports: [{port: 80, targetPort: 8080}]
---
apiVersion: v1
kind: Service
metadata: {name: both, namespace: mesh}
spec:
  ipFamilyPolicy: RequireDualStack
  ipFamilies: [IPv4, IPv6]
  selector: {tier: web}
  ports: [{port: 80, targetPort: 8080}]
"""


@contextmanager
def direct_mesh(folder: Path, workers: int = 2) -> Iterator[Bed]:
    """`nearby` is the pod `near`; `both` has `server` on the other node as well."""
    # Two workers: each learns for itself, and has its share of the kernel's connections.
    with mesh_bed(folder, workers=workers) as made:
        made.apply(SERVICES)
        for name in ("near", "server"):
            changes.label(made.lab, "Pod", "mesh", name, ["tier=web"])
        soon(lambda: len(vips(made, "both")) == 2, "both services are known")
        yield made


def vips(bed: Bed, name: str) -> dict[int, str]:
    """Family → address."""
    found = [each for each in bed.ztunnel(bed.here)["services"] if each["name"] == name]
    texts = [text.rpartition("/")[2] for each in found for text in each["vips"]]
    return {6 if ":" in text else 4: text for text in texts}


def connections(bed: Bed, pod: str = "client") -> list[dict[str, Any]]:
    """Connections of a pod in the ztunnel's dump, both directions."""
    states = bed.ztunnel(bed.here)["workloadState"].values()
    found: list[dict[str, Any]] = []
    for state in states:
        if state["info"]["name"] == pod:
            found += state["connections"]["outbound"] + state["connections"]["inbound"]
    return found


def entry_of(bed: Bed, sock: socket.socket, pod: str = "client") -> dict[str, Any]:
    """The record of this connection, once there is one."""
    name = sock.getsockname()
    source = f"[{name[0]}]:{name[1]}" if ":" in name[0] else f"{name[0]}:{name[1]}"
    found: list[dict[str, Any]] = []

    def there() -> bool:
        found[:] = [each for each in connections(bed, pod) if each["src"] == source]
        return bool(found)

    soon(there, f"a record of {source}")
    return found[0]


def goes_direct(bed: Bed, address: str, port: int = PORT, pod: str = "client") -> socket.socket:
    """Connections until one is the kernel's own; it has said and heard a line."""
    made: list[socket.socket] = []

    def direct() -> bool:
        try:
            sock = bed.dial(pod, address, port)
        except OSError:
            return False  # the policy of an earlier test has not gone everywhere yet
        seen = speak(sock)
        assert not seen or seen.startswith(bed.address(pod, 6 if ":" in address else 4))
        if seen and entry_of(bed, sock, pod)["path"] == "direct":
            made.append(sock)
            return True
        sock.close()
        return False

    soon(direct, f"a direct connection to {address}")
    return made[0]


def metrics(bed: Bed, name: str, **labels: str) -> float:
    """By the socket: the port has a pace for each address, which polls would exceed."""
    page = request(bed.lab.run_dir / bed.here / "ztunnel.sock", "GET", "/metrics")
    assert page.status == 200
    total = 0.0
    for line in page.body.decode().splitlines():
        if line.startswith(name + "{") and all(f'{k}="{v}"' in line for k, v in labels.items()):
            total += float(line.rpartition(" ")[2])
    return total


def counter(bed: Bed, name: str) -> int:
    return int(bed.agent(bed.here)["counters"][name])


def chosen(bed: Bed) -> int:
    """Number of connections that the kernel has made itself."""
    return counter(bed, "direct_chosen")


def source(name: str) -> list[object]:
    return [{"from": [{"source": {"principals": [f"cluster.local/ns/mesh/sa/{name}"]}}]}]


def deny(name: str) -> str:
    value = {
        "apiVersion": "security.istio.io/v1",
        "kind": "AuthorizationPolicy",
        "metadata": {"name": "tested", "namespace": "mesh"},
        "spec": {
            "action": "DENY",
            "selector": {"matchLabels": {"app": "near"}},
            "rules": source(name),
        },
    }
    return json.dumps(value) + "\n"


def lines_about(bed: Bed, text: str) -> int:
    lines = bed.log(f"ztunnel-{bed.here}").splitlines()
    return sum("connection complete" in line and text in line for line in lines)
