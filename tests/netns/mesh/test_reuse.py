"""A pod dies without a word, and another gets its address."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest

from agent.lab.netns import NETNS_FOLDER
from tests.support.lab.mesh_bed import ENROLLED, FOLDER, PORT, Bed, Reply, mesh_bed

POD = f"""\
apiVersion: v1
kind: Pod
metadata:
  name: {{name}}
  namespace: mesh
  labels: {{{{app: {{name}}}}}}
  annotations:
    tulle.io/lab-node: {{node}}
    tulle.io/lab-command: "python3 {FOLDER}/echo.py 8080 9090"
    tulle.io/lab-ready-tcp: "9090"
spec: {{{{serviceAccountName: server, containers: [{{{{name: app}}}}]}}}}
"""


@pytest.fixture(scope="module")
def bed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    with mesh_bed(tmp_path_factory.mktemp("operators")) as made:
        yield made


def cut(bed: Bed, name: str) -> None:
    """The pod falls silent: no FIN, no RST."""
    pod = bed.pod(name)
    node = bed.lab.store.load().node(pod.spec.node)
    inside = ["nsenter", f"--net={NETNS_FOLDER / node.netns}", "--"]
    subprocess.run([*inside, "ip", "link", "set", pod.link, "down"], check=True, timeout=10)


@pytest.mark.parametrize("family", [4, 6])
def test_a_pod_that_gets_the_address_of_a_dead_one_answers_at_once(bed: Bed, family: int) -> None:
    bed.apply(POD.format(name="doomed", node=bed.there))
    bed.wait_captured((*ENROLLED, "doomed"))
    address = bed.address("doomed", family)
    assert bed.reach("client", "doomed", family) is Reply.ANSWERED  # the tunnel stays in the pool
    before = bed.log(f"ztunnel-{bed.here}")
    cut(bed, "doomed")
    bed.delete("pod", "mesh", "doomed")
    bed.apply(POD.format(name="fresh", node=bed.there))
    bed.wait_captured((*ENROLLED, "fresh"))
    assert bed.address("fresh", family) == address
    for client in ("client", "other", "client"):
        assert bed.ask(client, address, PORT, timeout_s=2.0) is Reply.ANSWERED
    lines = bed.log(f"ztunnel-{bed.here}")[len(before) :].splitlines()
    assert not [each for each in lines if "dst.workload=fresh" in each and "error=" in each]
    bed.delete("pod", "mesh", "fresh")
    bed.wait_captured()
