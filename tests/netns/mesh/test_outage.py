"""A control plane that is away for longer than a leaf lives; and the service that was dialled, as
the destination tells it."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Iterator
from datetime import datetime

import pytest

from agent import fetch
from agent.lab import changes, daemons
from control.kit.clock import SystemClock
from tests.support.kernel.netns import eventually
from tests.support.lab.mesh_bed import Bed, Reply, mesh_bed, soon

LEAF_S = 8
LEAVES = 4  # client, other and near on one node, server on the other
BACK_S = 5.0
SERVICES = """\
apiVersion: v1
kind: Service
metadata: {name: front, namespace: mesh}
spec: {clusterIP: 172.20.77.8, selector: {app: server}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: back, namespace: mesh}
spec: {clusterIP: 172.20.77.9, selector: {app: server}, ports: [{port: 80, targetPort: 8080}]}
"""


@pytest.fixture(scope="module")
def bed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    with pytest.MonkeyPatch.context() as patch:
        mine = daemons.environment() | {"TULLE_CONTROL_CERT_TTL_MAX": f"{LEAF_S}s"}
        patch.setattr(daemons, "environment", lambda: mine)
        with mesh_bed(tmp_path_factory.mktemp("outage")) as made:
            yield made


def ends(bed: Bed, node: str) -> list[datetime]:
    """The end of each identity's leaf on this node."""
    chains = [each["certChain"] for each in bed.ztunnel(node)["certificates"]]
    return [datetime.fromisoformat(chain[0]["expirationTime"]) for chain in chains if chain]


def all_are(bed: Bed, *, valid: bool) -> bool:
    """A leaf is valid until the end of the second that it names."""
    second = SystemClock().now().replace(microsecond=0)
    found = [end for node in (bed.here, bed.there) for end in ends(bed, node)]
    return len(found) == LEAVES and all((end >= second) is valid for end in found)


def test_certificates_come_back_with_the_control_plane_and_who_waits_is_served(bed: Bed) -> None:
    assert bed.reach("client", "server") is Reply.ANSWERED
    changes.kill(bed.lab, "control", None)
    eventually(lambda: all_are(bed, valid=False), "every leaf has ended", LEAF_S + 5.0)
    for node in (bed.here, bed.there):
        for pid in bed.workers(node):
            os.kill(pid, signal.SIGKILL)  # with the tunnels that outlive a leaf
    soon(lambda: bool(bed.workers(bed.here) and bed.workers(bed.there)), "new workers")
    for family in (4, 6):
        assert bed.reach("client", "server", family) is not Reply.ANSWERED
    changes.restart(bed.lab, "control", None)
    back = time.monotonic()
    eventually(lambda: bed.reach("client", "server") is Reply.ANSWERED, "a waiting app", BACK_S)
    eventually(lambda: all_are(bed, valid=True), "all leaves", BACK_S)
    assert time.monotonic() - back < BACK_S
    assert bed.reach("client", "server", 6) is Reply.ANSWERED


@pytest.mark.parametrize(("name", "address"), [("front", "172.20.77.8"), ("back", "172.20.77.9")])
def test_the_destination_names_the_service_that_was_dialled(
    bed: Bed, name: str, address: str
) -> None:
    """Both lead to the same port of the same pod; either name could be guessed."""
    bed.apply(SERVICES)
    host = f"{name}.mesh.svc.cluster.local"
    line = re.compile(rf"connection complete .*dst\.service={host} .*direction=inbound")

    def told() -> bool:  # as long as no ztunnel knows of the service, the connection passes by
        assert bed.ask("client", address, 80) is Reply.ANSWERED
        return line.search(bed.log(f"ztunnel-{bed.there}")) is not None

    soon(told, "in the log")
    socket = bed.lab.run_dir / bed.there / "ztunnel.sock"
    opened = re.compile(r"istio_tcp_connections_opened_total\{(.*)\} [1-9]")

    def counted() -> bool:
        page = fetch.request(socket, "GET", "/metrics").body.decode()
        wanted = {'reporter="destination"', f'destination_service="{host}"'}
        return any(wanted <= set(each.split(",")) for each in opened.findall(page))

    soon(counted, "in the metrics")
