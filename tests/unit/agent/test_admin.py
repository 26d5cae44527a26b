"""POST /pods: what is taken and what is refused before anything is touched."""

from __future__ import annotations

import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.admin import TIMEOUT_S_MAX, PodRequest, parse_request
from control.kit.errors import ConfigError


def body(**fields: object) -> bytes:
    whole = {"namespace": "shop", "name": "web", "netns": "/run/netns/x", **fields}
    return json.dumps({key: value for key, value in whole.items() if value is not None}).encode()


def test_a_registration_by_path_and_by_process() -> None:
    assert parse_request(body(uid="u")) == PodRequest("shop", "web", "u", "/run/netns/x", 10.0)
    sandbox = parse_request(body(uid="u", container_id="f7c3"))
    assert sandbox == PodRequest("shop", "web", "u", "/run/netns/x", 10.0, "f7c3")
    own = parse_request(body(netns=None, pid=os.getpid(), timeout_s=1000))
    assert own == PodRequest("shop", "web", None, f"/proc/{os.getpid()}/ns/net", TIMEOUT_S_MAX)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"\xff",
        body(name=""),
        body(namespace=None),
        body(name="a\nb"),
        body(name=5),
        body(uid="u" * 81),
        body(uid="é" * 41),
        body(uid="\ud800"),
        body(netns="/run/netns/\ud800"),
        body(netns="/run/netns/a\nb"),
        body(netns=None, pid=2**70),
        b"[" * 100_000,
        b'{"pid": ' * 100_000,
        body(uid=""),
        body(netns="relative"),
        body(netns=None),
        body(pid=1),
        body(netns=None, pid=True),
        body(netns=None, pid=-1),
        body(netns=None, pid="1"),
        body(timeout_s="1"),
        body(timeout_s=True),
        body(unknown=1),
        body(container_id=""),
        body(container_id=7),
        body(container_id="c" * 129),
        body().replace(b'"web"', b'"web", "timeout_s": Infinity'),
    ],
)
def test_a_bad_registration_is_refused(data: bytes) -> None:
    with pytest.raises(ConfigError):
        parse_request(data)


JSON = st.recursive(st.none() | st.integers() | st.text(), st.lists, max_leaves=8)


@given(st.binary(max_size=60) | JSON.map(lambda value: json.dumps(value).encode()))
def test_any_body_is_a_request_or_a_config_error(data: bytes) -> None:
    with pytest.raises(ConfigError):
        parse_request(data)
