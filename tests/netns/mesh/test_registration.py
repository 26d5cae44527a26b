"""A pod that dials the moment its registration is answered, before its object has an address."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from agent import config, fetch
from agent.datapath import folder
from agent.lab.netns import NETNS_FOLDER
from control.kit.files import write_atomic
from tests.support.lab.mesh_bed import PORT, Bed, Reply, mesh_bed, soon

TIMES = 100


@pytest.fixture(scope="module")
def bed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    with mesh_bed(tmp_path_factory.mktemp("registration")) as made:
        yield made


@contextmanager
def without_address(bed: Bed, name: str) -> Iterator[None]:
    """The pod's object says that it runs, and not yet where."""
    for path in bed.lab.manifests_folder.rglob("*.yaml"):
        text = path.read_text()
        found: list[dict[str, Any]] = [each for each in yaml.safe_load_all(text) if each]
        mine = [e for e in found if e["kind"] == "Pod" and e["metadata"]["name"] == name]
        if mine:
            mine[0]["status"] = {"phase": "Running"}
            replace(path, "\n---\n".join(map(json.dumps, found)))
            yield
            replace(path, text)
            return
    raise AssertionError(f"no manifest of {name}")


def replace(path: Path, text: str) -> None:
    write_atomic(path, text.encode(), 0o644)


def stated(bed: Bed, uid: str) -> list[str]:
    """Addresses of the pod's object."""
    admin = bed.lab.run_dir / "control" / "admin.sock"
    pods = fetch.request(admin, "GET", "/pods").json()
    return next(list(each["addresses"]) for each in pods if each["uid"] == uid)


def test_its_first_dial_succeeds_each_time(bed: Bed) -> None:
    pod = bed.pod("other")
    agent = bed.lab.run_dir / bed.here / "agent.sock"
    body = {
        "namespace": "mesh",
        "name": "other",
        "uid": pod.uid,
        "netns": str(NETNS_FOLDER / pod.netns),
    }
    targets = [bed.address(name, family) for name in ("near", "server") for family in (4, 6)]
    replies: Counter[tuple[str, Reply]] = Counter()
    with without_address(bed, "other"):
        soon(lambda: stated(bed, pod.uid) == [], "the new object")
        for number in range(TIMES):
            path = f"/pods/{pod.uid}?container_id={number - 1 if number else ''}"
            assert fetch.request(agent, "DELETE", path).status == 200
            answer = fetch.request(agent, "POST", "/pods", {**body, "container_id": str(number)})
            assert answer.status == 200, answer.body
            target = targets[number % len(targets)]
            replies[target, bed.ask("other", target, PORT)] += 1
    assert {reply for _, reply in replies} == {Reply.ANSWERED}, replies
    fetch.request(agent, "DELETE", f"/pods/{pod.uid}?container_id={TIMES - 1}")
    assert fetch.request(agent, "POST", "/pods", body).status == 200


def test_a_node_whose_pins_were_all_removed_is_whole_again(bed: Bed) -> None:
    """As by a second mount over the BPF file system: nothing is captured, and nobody is told."""
    (pins,) = folder.versions(config.pin_root(config.DEFAULT_BPFFS, bed.here))
    with bed.wire(bed.there) as wire:
        pins.remove()

        def leaves_in_the_clear() -> bool:
            bed.reach("client", "server")
            return wire.counts().marker_packets > 0

        soon(leaves_in_the_clear, "the kernel has dropped the links")
    compared = fetch.request(bed.lab.run_dir / bed.here / "agent.sock", "POST", "/compare")
    assert compared.json()["differences"]["pod_link_lost"] == 3
    pairs = (("client", "server", 8080), ("server", "near", 8080), ("client", "near", 8080))
    soon(lambda: bed.yes(*pairs), "everybody is reached")
    with bed.wire(bed.there) as wire:
        assert bed.yes(*pairs)
        assert wire.counts().marker_packets == 0
    bed.wait_captured()
