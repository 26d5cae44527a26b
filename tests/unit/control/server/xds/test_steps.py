"""No step of a publication grows with the mesh: its work is counted."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from control.kit.clock import SystemClock
from control.server.compile.settings import Settings
from control.server.metrics import Metrics
from control.server.sources.captured import CapturedSet
from control.server.sources.inventory import Inventory
from control.server.sources.objects import AnyObject, Key, PodObject
from control.server.sources.snapshot import Snapshot
from control.server.xds.publish import Publisher
from control.server.xds.shelf import ShelfPlace
from control.wire.types import ADDRESS_TYPE
from tests.support.counted_steps import Most, measured
from tests.support.manifests import load, pod, policy
from tests.support.mesh_worlds import AMBIENT, namespace

PODS, OTHERS, SPACES = 1000, 400, 3
# A policy that is encoded is 700 lines; 128 keys are 400 blocks.
LINES_MAX, FREED_MAX = 900, 800
STRICT = "{mtls: {mode: STRICT}}"
SELECTING = "{selector: {matchLabels: {app: web}}, rules: [{}]}"
Changed = Mapping[Key, AnyObject | None]


def space_of(number: int) -> str:
    return f"space-{number % SPACES}"


def address_of(number: int) -> str:
    return f"10.1.{number >> 8}.{number & 255}"


def pod_of(number: int) -> str:
    labels = f"app: web, number: n{number}"
    return pod(f"p-{number}", space_of(number), labels=labels, address=address_of(number))


def policy_of(number: int) -> str:
    selects = f"{{selector: {{matchLabels: {{number: n{number}}}}}, rules: [{{}}]}}"
    return policy(selects, name=f"p-{number}", namespace=space_of(number))


def endpoints_of(number: int) -> str:
    """A service, and a slice of it that names the address of a pod: that has two claims then."""
    space, name = space_of(number), f"far-{number}"
    return (
        f"---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: {space}}}\n"
        "spec: {clusterIP: None, ports: [{port: 80}]}\n"
        "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\naddressType: IPv4\n"
        f"metadata: {{name: {name}, namespace: {space}, "
        f"labels: {{kubernetes.io/service-name: {name}}}}}\n"
        f"endpoints: [{{addresses: [{address_of(number)}]}}]\nports: [{{port: 80}}]\n"
    )


def spaces(labels: str) -> str:
    return "".join(namespace(labels, space_of(number)) for number in range(SPACES))


def labelled(pods: Changed) -> Changed:
    """The same pods, each with another label."""
    return {
        key: replace(each, meta=replace(each.meta, labels={**each.meta.labels, "v": "2"}))
        for key, each in pods.items()
        if isinstance(each, PodObject)
    }


def changes(pods: Changed) -> Iterator[tuple[str, Changed]]:
    yield "pods are labelled", labelled(pods)
    yield "namespaces leave", load(spaces("")).changed
    strict = policy(STRICT, "PeerAuthentication", namespace="istio-system")
    for what, text in (
        ("policies", "".join(map(policy_of, range(OTHERS)))),
        ("policies for all", strict + policy(SELECTING, namespace="istio-system")),
        ("endpoints", "".join(map(endpoints_of, range(OTHERS)))),
    ):
        found = load(text).changed
        yield f"{what} come", found
        yield f"{what} go", dict.fromkeys(found)
    yield "pods go", dict.fromkeys(pods)


def offered(publisher: Publisher, changed: Changed) -> Publisher:
    publisher.offer(Snapshot(Inventory(), dict(changed)))
    return publisher


@pytest.fixture(scope="module")
def largest() -> Mapping[str, Most]:
    """The largest step of each change, in one mesh. Log lines are none of its work."""
    log = logging.getLogger("source")
    log.setLevel(logging.ERROR)
    try:
        return measured_changes()
    finally:
        log.setLevel(logging.NOTSET)


def measured_changes() -> Mapping[str, Most]:
    found: dict[str, Most] = {}
    with TemporaryDirectory() as folder:
        captured = CapturedSet(Path(folder), is_new=True)
    subject = Publisher(Settings(), captured, Metrics(), SystemClock())
    pods = load("".join(map(pod_of, range(PODS)))).changed
    offered(subject, load(spaces(AMBIENT)).changed)
    offered(subject, pods).publish()
    # Somebody follows, so that the past is kept, and somebody asks by name.
    reader = ShelfPlace(at=subject.cache.revision)
    subject.cache.shelf(ADDRESS_TYPE, "n1").places.add(reader)
    found["names are found"] = measured(subject.cache.index_steps())
    uids = list(subject.mesh.pods)
    captured.take("n1", dict.fromkeys(uids, ()))
    subject.refresh(uids)
    found["reports"] = measured(subject._steps(with_objects=False))
    for what, changed in changes(pods):
        reader.at = max(reader.at, subject.cache.revision - 1)
        if what == "pods go":  # nobody knows their names any more
            subject.cache.shelf(ADDRESS_TYPE, "n1").places.discard(reader)
        found[what] = measured(offered(subject, changed)._steps())
    return found


CHANGES = ["names are found", "reports", *(what for what, _ in changes({}))]


@pytest.mark.parametrize("what", CHANGES)
def test_no_step_of_a_change_grows_with_the_mesh(largest: Mapping[str, Most], what: str) -> None:
    most = largest[what]
    assert most.lines[0] <= LINES_MAX, most
    assert most.freed[0] <= FREED_MAX, most


def test_a_pass_over_all_pods_in_one_step_would_be_seen() -> None:
    pods = list(range(PODS))

    def passes() -> Iterator[None]:
        yield
        assert {each: None for each in pods}  # noqa: C420 a pass in Python is what is seen
        yield
        copies = [str(each) for each in pods]
        yield
        del copies
        yield

    most = measured(passes())
    assert most.lines[0] > LINES_MAX
    assert most.freed[0] > FREED_MAX
