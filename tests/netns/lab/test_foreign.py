"""A lab with a ztunnel of another make on one node. Ours stands in for it: it is started with
nothing but Istio's variables, and talks to the agent as Istio's does."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from agent.lab import changes, daemons
from agent.lab.lab import Lab, Options
from tests.netns.lab.test_mesh import MANIFESTS, SERVE, captured, get, node, tulle
from tests.support.kernel.leftovers import none_left
from tests.support.kernel.netns import eventually, need_root

STRICT = """\
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: shop}
spec: {mtls: {mode: STRICT}}
"""


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    """The server's node has the foreign ztunnel, the client's node ours."""
    need_root()
    folder = tmp_path / "lab"
    folder.mkdir()
    (folder / "manifests.yaml").write_text(MANIFESTS)
    (folder / "serve.py").write_text(SERVE)
    theirs = tmp_path / "theirs"
    (theirs / node("b")).mkdir(parents=True)
    foreign = [*daemons.program("tulle-ztunnel"), "--fixed-ports", "--run-dir", str(theirs)]
    pods = {
        "shop/web": {"node": node("b"), "command": ["python3", "serve.py"], "ready": {"tcp": 8080}},
        "shop/client": {"node": node("a"), "command": ["sleep", "infinity"]},
    }
    nodes = {node("a"): {}, node("b"): {"ztunnel": foreign}}
    spec = {"name": node("f"), "nodes": nodes, "pods": pods}
    (folder / "lab.yaml").write_text(json.dumps(spec))
    made = Lab(tmp_path / "run")
    with none_left(made.run_dir):
        try:
            made.up(folder, Options())
            yield made
        finally:
            made.down()


def log(lab: Lab, letter: str) -> str:
    return (lab.run_dir / "logs" / f"ztunnel-{node(letter)}.log").read_text()


def completed(lab: Lab, letter: str, direction: str) -> list[str]:
    """Lines of connections; each comes when its connection is over, after the answer."""
    return [each for each in log(lab, letter).splitlines() if f"direction={direction}" in each]


def test_both_makes_serve_one_mesh_and_status_knows_them_apart(lab: Lab) -> None:
    tulle(lab, "namespace", "add", "shop")
    eventually(lambda: captured(lab) == 2, "both pods captured")
    changes.apply(lab, STRICT, "strict.yaml")
    eventually(lambda: get(lab) == "b'hello'", "traffic between the two")
    for letter, direction in (("a", "outbound"), ("b", "inbound")):
        lines = partial(completed, lab, letter, direction)
        eventually(lambda seen=lines: bool(seen()), f"{letter}'s line")
        assert re.search(r"dst\.identity=spiffe://cluster\.local/ns/shop/sa/default", lines()[-1])
        assert "dst.service=web.shop.svc.cluster.local" in lines()[-1]
    rows = {each["name"]: each for each in tulle(lab, "status", "-o", "json")["components"]}
    row = rows[f"ztunnel-{node('b')}"]
    assert (row["state"], "another make" in row["detail"]) == ("ok", True)
    assert rows[f"agent-{node('b')}"]["state"] == "ok"
    assert "another make" in tulle(lab, "status")
    changes.restart(lab, "ztunnel", node("b"))
    eventually(lambda: get(lab) == "b'hello'", "traffic after the foreign one's restart")
    assert os.listdir(lab.run_dir / node("b")).count("ztunnel.sock") == 0
