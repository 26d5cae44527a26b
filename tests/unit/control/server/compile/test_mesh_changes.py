"""A mesh that was changed step by step is the one that is compiled from nothing."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import fields, replace

from hypothesis import given, settings
from hypothesis import strategies as st

from control.server.compile.delta import MeshDelta
from control.server.compile.mesh import CompiledMesh, KnownCaptures, Mesh, state_of
from control.server.compile.settings import Settings
from control.server.sources.objects import AnyObject, Key, PodObject
from tests.support.manifests import objects, pod
from tests.support.mesh_worlds import FOUND, World, policy, service

SETTINGS = Settings()
STEPS = 8
TABLES = tuple(each.name for each in fields(MeshDelta))


def compiled(world: World, settings: Settings = SETTINGS) -> CompiledMesh:
    mesh = Mesh(settings, world.reported)
    mesh.apply(world.objects)
    return state_of(mesh)


class Follower:
    """Takes deltas over as a reader does."""

    def __init__(self) -> None:
        self.tables: dict[str, dict[str, object]] = {name: {} for name in TABLES}

    def take(self, delta: MeshDelta) -> None:
        for name, table in self.tables.items():
            changed: Mapping[str, object] = getattr(delta, name)
            for key, value in changed.items():
                assert value != table.get(key), f"{name} {key} is no news"
                table.pop(key, None)
                if value is not None:
                    table[key] = value


@settings(max_examples=60)
@given(st.integers(0, 2**32))
def test_nothing_of_the_past_shows_in_the_present(seed: int) -> None:
    draw = random.Random(seed)
    world, reader = World(draw), Follower()
    mesh = Mesh(SETTINGS, world.reported)
    for step in range(STEPS):
        reader.take(mesh.apply(*world.change(30 if step == 0 else draw.choice([1, 1, 2, 4]))))
        found = compiled(world)
        assert state_of(mesh) == found
        assert set(mesh.keys()) <= world.objects.keys()
        for name, table in reader.tables.items():
            assert table == getattr(found, name)


@settings(max_examples=15)
@given(st.integers(0, 2**32))
def test_what_has_gone_leaves_nothing_behind(seed: int) -> None:
    world = World(random.Random(seed))
    mesh = Mesh(SETTINGS, world.reported)
    for _ in range(3):
        mesh.apply(*world.change(30))
    mesh.apply(world.put(dict.fromkeys(world.objects)))
    mesh.notebook.take_new()
    assert [name for name, size in sizes(mesh, "mesh") if size] == []


def sizes(value: object, name: str) -> Iterator[tuple[str, int]]:
    """Number of entries in each container that it holds."""
    if isinstance(value, dict | set | list):
        yield name, len(value)
    elif type(value).__module__.startswith("control.server.compile") and not isinstance(
        value, Settings
    ):
        slots = getattr(type(value), "__slots__", ())
        found = {each: getattr(value, each) for each in slots} if slots else vars(value)
        for each, part in found.items():
            yield from sizes(part, f"{name}.{each}")


@given(st.integers(0, 2**32))
@settings(max_examples=10)
def test_a_mesh_that_lets_go_is_as_one_that_never_kept(seed: int) -> None:
    world = World(random.Random(seed))
    world.change(30)
    leaving = Settings(release_all=True, keeps_pods=True)
    mesh = Mesh(leaving, world.reported)
    mesh.apply(world.objects)
    assert state_of(mesh) == compiled(world, leaving)
    mesh.let_go()
    mesh.apply({})
    assert state_of(mesh) == compiled(world, replace(leaving, keeps_pods=False))


def many_pods() -> tuple[Mesh, list[PodObject]]:
    text = "".join(
        pod(f"p{at}", labels=f"app: a{at % 5}", address=f"10.2.0.{at}") for at in range(60)
    )
    pods = list(objects(text).pods)
    mesh = Mesh(SETTINGS, KnownCaptures(frozenset()))
    world: dict[Key, AnyObject] = {each.meta.key: each for each in pods}
    chosen = (FOUND[10][0], FOUND[13][0], FOUND[15][0], FOUND[17][0], FOUND[22][0])
    world.update({each.meta.key: each for each in chosen})
    mesh.apply(world)
    return mesh, pods


def touched(mesh: Mesh, changed: Mapping[Key, AnyObject | None]) -> set[str]:
    """Names of everything that was made anew, be it as before."""
    before = {**mesh.workloads, **mesh.services, **mesh.pods}
    mesh.apply(changed)
    after = {**mesh.workloads, **mesh.services, **mesh.pods}
    return {name for name, each in after.items() if before.get(name) is not each}


def test_a_change_makes_only_what_depends_on_it() -> None:
    mesh, pods = many_pods()
    first = replace(pods[0], ready=False)
    assert touched(mesh, {first.meta.key: first}) == {"Kubernetes//Pod/shop/p0"}
    (selecting,) = objects(service("some", "app: a1")).services
    found = touched(mesh, {selecting.meta.key: selecting})
    assert found == {
        "shop/some.shop.svc.cluster.local",
        *(f"Kubernetes//Pod/shop/p{at}" for at in range(1, 60, 5)),
    }
    (rule,) = objects(policy("{selector: {matchLabels: {app: a2}}}")).authorization_policies
    found = touched(mesh, {rule.meta.key: rule})
    assert found == {f"Kubernetes//Pod/shop/p{at}" for at in range(2, 60, 5)}
    other = objects(policy("{action: DENY, selector: {matchLabels: {app: a2}}}"))
    (rule,) = other.authorization_policies
    assert touched(mesh, {rule.meta.key: rule}) == set(), "its pods name it as before"
