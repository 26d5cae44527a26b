"""Holders of addresses: step by step the same as from scratch, at the price of each step."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from control.kit.slices import done
from control.model.address import parse_address
from control.server.compile.holdings import Holdings, Upset
from control.server.compile.pods import pod_uid
from control.server.sources.objects import (
    EndpointSlice,
    NodeObject,
    Objects,
    PodObject,
    ServiceObject,
)
from tests.support.manifests import objects, pod

ADDRESSES = ("10.5.0.1", "10.5.0.2", "fd00::5")
NODE = """
---
apiVersion: v1
kind: Node
metadata: {name: n1}
status: {addresses: [{type: InternalIP, address: 10.5.0.1}, {type: Hostname, address: n1}]}
"""


def service(name: str, address: str, kind: str) -> str:
    spec = {"external": f'externalIPs: ["{address}"], ', "cluster": f'clusterIP: "{address}", '}
    status = f'status: {{loadBalancer: {{ingress: [{{ip: "{address}"}}]}}}}\n'
    return (
        f"---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: shop}}\n"
        f"spec: {{{spec.get(kind, '')}ports: [{{port: {80 + len(name) % 2}}}]}}\n"
        f"{status if kind == 'balancer' else ''}"
    )


def endpoint_slice(name: str, address: str) -> str:
    return (
        "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n"
        f"metadata: {{name: {name}, namespace: shop, labels: {{kubernetes.io/service-name: s}}}}\n"
        f'addressType: IPv4\nendpoints: [{{addresses: ["{address}"]}}]\n'
    )


def everything() -> Objects:
    text = NODE
    for at, address in enumerate(ADDRESSES):
        for name in "ab":
            text += pod(f"{name}{at}", address=f'"{address}"')
            text += pod(f"host-{name}{at}", spec="hostNetwork: true", address=f'"{address}"')
            text += endpoint_slice(f"{name}{at}", address)
            for kind in ("cluster", "balancer", "external"):
                text += service(f"{kind}-{name * (1 + at)}", address, kind)
    return objects(text)


ALL = everything()
EVERY = list(ALL.by_key().values())


def some(every: tuple[Any, ...], most: int) -> st.SearchStrategy[tuple[Any, ...]]:
    chosen = st.sets(st.integers(0, len(every) - 1), max_size=most)
    return chosen.map(lambda numbers: tuple(every[each] for each in sorted(numbers)))


UIDS = sorted(pod_uid(each.meta) for each in ALL.pods)
PARTS = st.builds(
    Objects,
    pods=some(ALL.pods, 6),
    nodes=st.sampled_from([(), ALL.nodes]),
    services=some(ALL.services, 6),
    slices=some(ALL.slices, 3),
)
CAPTURED = st.frozensets(st.sampled_from(UIDS), max_size=6)


def answers(subject: Holdings) -> object:
    found = {}
    for address in map(parse_address, ADDRESSES):
        found[address] = (
            subject.pod_at(address),
            [
                (
                    each.meta.key,
                    subject.has(each.meta.key, address),
                    subject.ports_of(each.meta.key, address),
                    subject.is_place(each.meta.key, address),
                )
                for each in EVERY
            ],
        )
    return found, {each.meta.key: subject.lost(each.meta.key) for each in EVERY}


class Followed(Holdings):
    """Takes whole sets of objects over."""

    def follow(self, found: Objects, captured: Collection[str]) -> Upset:
        objects_now = found.by_key()
        for key in [each for each in self.owners() if each not in objects_now]:
            self.drop(key)
        for value in objects_now.values():
            assert isinstance(value, PodObject | NodeObject | ServiceObject | EndpointSlice)
            is_pod = isinstance(value, PodObject)
            self.put(value, is_pod and pod_uid(value.meta) in captured)
        return done(self.settle())


@given(st.lists(st.tuples(PARTS, CAPTURED), min_size=1, max_size=4))
def test_step_by_step_is_as_from_scratch(steps: list[tuple[Objects, frozenset[str]]]) -> None:
    subject = Followed()
    for found, captured in steps:
        subject.follow(found, captured)
        fresh = Followed()
        fresh.follow(found, captured)
        assert answers(subject) == answers(fresh)
    subject.follow(Objects(), frozenset())
    assert not any(subject.lost(each.meta.key) for each in EVERY)
    assert not subject._at
    assert not subject._decided
    assert not subject._contested


@given(CAPTURED, CAPTURED)
def test_a_report_is_as_from_scratch_and_names_who_may_have_lost(
    before: frozenset[str], after: frozenset[str]
) -> None:
    subject, fresh = Followed(), Followed()
    subject.follow(ALL, before)
    holders = {address: subject.pod_at(parse_address(address)) for address in ADDRESSES}
    lost = {each.meta.key: subject.lost(each.meta.key) for each in EVERY}
    reported = [each for each in ALL.pods if pod_uid(each.meta) in before ^ after]
    for each in reported:
        subject.put(each, pod_uid(each.meta) in after)
    upset = done(subject.settle())
    fresh.follow(ALL, after)
    assert answers(subject) == answers(fresh)
    for text, holder in holders.items():
        now = subject.pod_at(parse_address(text))
        assert now == holder or {now, holder} <= upset.moved
        assert now == holder or parse_address(text) in upset.addresses
    for each in EVERY:
        key = each.meta.key
        assert subject.lost(key) == lost[key] or key in upset.remarked


def test_what_did_not_change_is_not_decided_again() -> None:
    found = objects(service("a", "10.5.0.1", "cluster") + service("b", "10.5.0.1", "cluster"))
    subject = Followed()
    subject.follow(found, frozenset())
    address = parse_address("10.5.0.1")
    decided = subject._decide(address)
    subject.follow(found, frozenset())
    assert subject._decide(address) is decided
    assert done(subject.settle()) == Upset()


def test_host_network_pods_share_the_address_of_their_node() -> None:
    subject = Followed()
    host = [pod(name, spec="hostNetwork: true", address="10.5.0.1") for name in "ab"]
    found = objects(NODE + "".join(host))
    subject.follow(found, frozenset())
    address = parse_address("10.5.0.1")
    assert all(subject.has(each.meta.key, address) for each in found.pods)
    assert subject.pod_at(address) is None
    assert not any(subject.lost(each.meta.key) for each in found.pods)
