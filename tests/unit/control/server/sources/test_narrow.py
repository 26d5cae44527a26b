"""Narrow documents give the same objects as whole ones, on recorded objects of a real cluster."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from control.server.sources import core
from control.server.sources.kinds import KINDS
from control.server.sources.narrow import document_of
from control.server.sources.objects import AnyObject
from control.server.sources.problem import Invalid
from control.server.sources.reader import Reader
from control.server.sources.yaml_text import Fields, Items, Value

WATCHES = Path(__file__).parents[4] / "vectors" / "kubernetes" / "watch"


def recorded() -> Iterator[dict[str, Any]]:
    for path in sorted(WATCHES.glob("*.jsonl")):
        for line in path.read_text().splitlines():
            yield json.loads(line)["object"]


class _Watched(Fields):
    """Keeps which keys were looked at."""

    __slots__ = ("path", "seen")

    def __init__(self, path: str, seen: set[str]) -> None:
        super().__init__(0)
        self.path, self.seen = path, seen

    def get(self, key: str, default: Any = None) -> Any:
        self.seen.add(f"{self.path}.{key}")
        return super().get(key, default)


def watched(value: Any, path: str, seen: set[str]) -> Value:
    if isinstance(value, dict):
        fields = _Watched(path, seen)
        for name, each in value.items():
            fields[name] = watched(each, f"{path}.{name}", seen)
        return fields
    if isinstance(value, list):
        items = Items(0)
        items.extend(watched(each, path, seen) for each in value)
        items.lines = [0] * len(items)
        return items
    return value  # type: ignore[no-any-return]  # a leaf


def read(document: Fields) -> AnyObject:
    reader = Reader(document)
    key = core.read_key(reader)
    return KINDS[key.kind].read(reader, core.read_meta(reader, key, "kubernetes"))


def test_recorded_objects_lose_nothing_that_is_read() -> None:
    kinds = set()
    for value in recorded():
        kinds.add(value["kind"])
        whole = watched(value, "", set())
        assert isinstance(whole, Fields)
        narrow = document_of(value["kind"], json.dumps(value).encode())
        assert narrow is not None
        assert read(narrow) == read(whole)
    assert kinds == {"Pod", "Service", "EndpointSlice"}


ODD = st.sampled_from([1, True, 1.0, "1", None, 80, "TCP", "Always", 2**70])
PORT = st.fixed_dictionaries(
    {}, optional={"containerPort": ODD, "hostPort": ODD, "protocol": ODD, "name": ODD}
)
CONTAINER = st.fixed_dictionaries(
    {}, optional={"ports": st.lists(PORT, max_size=2), "restartPolicy": ODD}
)
OWNER = st.fixed_dictionaries({}, optional={"controller": ODD, "name": ODD, "kind": ODD})
CONDITION = st.fixed_dictionaries({}, optional={"type": st.just("Ready"), "status": ODD})
STATUS = {"podIPs": [{"ip": "10.0.0.1"}], "hostIPs": [{"ip": "10.0.0.9"}]}


def told(document: Fields | None) -> AnyObject | str:
    """The object, or why there is none."""
    assert document is not None
    try:
        return read(document)
    except Invalid as exc:
        return str(exc)


@given(
    st.lists(
        st.tuples(
            st.lists(CONTAINER, max_size=2),
            st.lists(CONTAINER, max_size=2),
            st.lists(OWNER, max_size=1),
            st.lists(CONDITION, max_size=1),
        ),
        max_size=4,
    )
)
def test_what_pods_share_is_as_if_each_had_its_own(
    pods: list[tuple[list[Any], list[Any], list[Any], list[Any]]],
) -> None:
    """True is not 1, whatever the pod before has said."""
    for containers, inits, owners, conditions in pods:
        value = {
            "kind": "Pod",
            "metadata": {"name": "a", "namespace": "b", "ownerReferences": owners},
            "spec": {"containers": containers, "initContainers": inits},
            "status": {**STATUS, "conditions": conditions},
        }
        whole = watched(value, "", set())
        assert isinstance(whole, Fields)
        narrow = told(document_of("Pod", json.dumps(value).encode()))
        assert (narrow, repr(narrow)) == ((own := told(whole)), repr(own))


def test_pods_of_a_deployment_have_one_list_of_containers() -> None:
    found = []
    for name in ("a", "b"):
        value = {"metadata": {"name": name}, "spec": {"containers": [{"ports": [{"name": "x"}]}]}}
        document = document_of("Pod", json.dumps(value).encode())
        assert document is not None
        found.append(Reader(document).part("spec").fields["containers"])
    assert found[0] is found[1]


def paths_of(value: Any, path: str = "") -> set[str]:
    """Every path of a document."""
    if isinstance(value, list):
        return {found for each in value for found in paths_of(each, path)}
    if not isinstance(value, dict):
        return set()
    found = set()
    for name, each in value.items():
        found |= {f"{path}.{name}"} | paths_of(each, f"{path}.{name}")
    return found


@pytest.mark.parametrize("kind", ["Pod", "Node", "Namespace", "ServiceAccount"])
def test_every_field_that_a_reader_looks_at_is_decoded(kind: str) -> None:
    """For those that no recorded object has."""
    samples = [each for each in recorded() if each["kind"] == kind] or [
        {
            "kind": kind,
            "metadata": {"name": "a", "labels": {"a": "b"}, "annotations": {"c": "d"}},
            "status": {"addresses": [{"type": "InternalIP", "address": "10.0.0.1"}]},
        }
    ]
    for value in samples:
        seen: set[str] = set()
        whole = watched(value, "", seen)
        assert isinstance(whole, Fields)
        read(whole)
        narrow = document_of(kind, json.dumps(value).encode())
        assert narrow is not None
        missing = (seen & paths_of(value)) - paths_of(narrow) - {".apiVersion"}
        assert not missing, f"add to narrow.py: {missing}"


@pytest.mark.parametrize(
    "pod",
    [
        {"metadata": {"name": 3}},
        {"metadata": 3},
        {"metadata": {"name": "a"}, "spec": {"containers": {"a": "b"}}},
        {"metadata": {"name": "a"}, "spec": {"containers": ["a"]}},
        {"metadata": {"name": "a"}, "status": []},
    ],
)
def test_a_document_of_another_shape_is_read_whole(pod: dict[str, Any]) -> None:
    found = document_of("Pod", json.dumps(pod).encode())
    assert found == {**pod, "kind": "Pod"}


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"3", b"null", b"\xff", b"[" * 100000])
@pytest.mark.parametrize("kind", ["Pod", "Service"])
def test_other_bytes_are_no_document(kind: str, data: bytes) -> None:
    assert document_of(kind, data) is None


def test_fields_of_managers_are_left_out() -> None:
    value = {"metadata": {"name": "a", "managedFields": [{"manager": "x"}]}, "spec": {}}
    found = document_of("Service", msgspec.json.encode(value))
    assert found == {"kind": "Service", "metadata": {"name": "a"}, "spec": {}}
