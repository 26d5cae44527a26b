"""A pod that is told from another is the one that the readers read."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control.server.sources import alike, core
from control.server.sources.alike import own_of
from control.server.sources.kinds import KINDS
from control.server.sources.narrow import document_of
from control.server.sources.objects import PodObject
from control.server.sources.problem import Invalid
from control.server.sources.reader import Reader

FILE = "pods.json"
COPY = "kubectl.kubernetes.io/last-applied-configuration"
PORT = {"containerPort": 80}
STATUS = {
    "phase": "Running",
    "podIPs": [{"ip": "10.0.0.1"}],
    "conditions": [{"type": "Ready", "status": "True"}],
    "hostIP": "192.0.2.1",
}


def a_pod(**changed: Any) -> dict[str, Any]:
    """`meta`, `spec` and `status` are put over what most have; None takes a field out."""
    parts: dict[str, Any] = {
        "meta": {"name": "a-1", "namespace": "shop", "uid": "u-1", "labels": {"app": "a"}},
        "spec": {"nodeName": "n1", "containers": [{"ports": [PORT]}]},
        "status": STATUS,
    }
    meta, spec, status = ({**parts[name], **changed.get(name, {})} for name in parts)
    return {"kind": "Pod", "metadata": meta, "spec": spec, "status": status}


def read(value: Any) -> PodObject | None:
    """By the readers; None: refused."""
    document = document_of("Pod", json.dumps(value).encode())
    assert document is not None
    document.line = 3
    reader = Reader(document)
    try:
        found = KINDS["Pod"].read(reader, core.read_meta(reader, core.read_key(reader), FILE))
    except Invalid:
        return None
    assert isinstance(found, PodObject)
    return found


def told(value: Any) -> PodObject | None:
    """From one that is known; None: it has to be read."""
    own = own_of(json.dumps(value).encode())
    return None if own is None else own.pod(FILE, 3)


def know(value: Any) -> None:
    own, found = own_of(json.dumps(value).encode()), read(value)
    assert own is not None
    assert found is not None
    own.remember(found)


@pytest.fixture(autouse=True)
def _nothing_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alike, "_KNOWN", {})


ODD = st.sampled_from([None, "", 0, 1, True, False, 1.5, [], {}, "A B", "a", "-", "x" * 300])
NAMES = st.sampled_from(["a-2", "a-3"]) | ODD
TIMES = st.sampled_from(["2026-01-01T00:00:00Z", "2026-01-01"]) | ODD
IPS = st.sampled_from(["10.0.0.2", "fd00::2", "10.0.0.256", "fe80::1%e"]) | ODD
NOTES = st.dictionaries(st.sampled_from(["x", COPY]), st.sampled_from(["1", "2"]) | ODD) | ODD
META = {"name": NAMES, "uid": NAMES, "creationTimestamp": TIMES, "annotations": NOTES}
LISTS = st.lists(st.fixed_dictionaries({}, optional={"ip": IPS}), max_size=3)
OWN = st.fixed_dictionaries(
    {
        "meta": st.fixed_dictionaries({}, optional=META),
        "spec": st.fixed_dictionaries({}, optional={"nodeName": NAMES}),
        "status": st.fixed_dictionaries(
            {}, optional={"podIPs": LISTS | ODD, "podIP": IPS, "hostIP": IPS}
        ),
    }
)


@given(OWN)
def test_it_is_the_pod_that_is_read(changed: Any) -> None:
    know(a_pod())
    value = a_pod(**changed)
    found = told(value)
    if found is not None:
        assert found == read(value)


def test_the_pods_of_a_deployment_are_told() -> None:
    know(a_pod())
    for number in (2, 3):
        value = a_pod(
            meta={
                "name": f"a-{number}",
                "uid": f"u-{number}",
                "creationTimestamp": "2026-01-01T00:00:00Z",
                "annotations": {"note": str(number), COPY: "{}"},
            },
            spec={"nodeName": f"n{number}"},
            status={"podIPs": [{"ip": f"10.0.0.{number}"}, {"ip": f"fd00::{number}"}]},
        )
        found = told(value)
        assert found is not None
        assert found == read(value)
        assert found.node == f"n{number}"


@pytest.mark.parametrize(
    "changed",
    [
        {"meta": {"namespace": "other"}},
        {"meta": {"labels": {"app": "b"}}},
        {"meta": {"deletionTimestamp": "2026-01-01T00:00:00Z"}},
        {"spec": {"serviceAccountName": "b"}},
        {"spec": {"hostNetwork": True}},
        {"spec": {"containers": [{"ports": [{"containerPort": 81}]}]}},
        {"spec": {"containers": [{"ports": [{"containerPort": True}]}]}},
        {"status": {"phase": "Failed"}},
        {"status": {"conditions": [{"type": "Ready", "status": "False"}]}},
    ],
)
def test_one_that_differs_in_more_is_read(changed: Any) -> None:
    know(a_pod())
    assert told(a_pod()) is not None
    assert told(a_pod(**changed)) is None


def test_ports_of_a_host_are_a_pods_own() -> None:
    with_host_port = {"spec": {"containers": [{"ports": [{**PORT, "hostPort": 8080}]}]}}
    know(a_pod(**with_host_port))
    assert told(a_pod(**with_host_port)) is None


@pytest.mark.parametrize("data", [b"{", b"[]", b"{}", b'{"metadata": {"name": "a"}}', b"[" * 5000])
def test_what_is_no_usual_pod_is_left_to_the_readers(data: bytes) -> None:
    assert own_of(data) is None


def test_no_more_are_known_than_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alike, "KNOWN_MAX", 3)
    for number in range(7):
        know(a_pod(meta={"labels": {"app": f"a-{number}"}}))
        assert len(alike._KNOWN) == number % 3 + 1  # begun anew when it is full
