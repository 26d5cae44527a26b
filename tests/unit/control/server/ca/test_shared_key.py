"""The key of node tokens is one at all replicas, and a start does not depend on that."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path

import pytest

from control.kube.client import KubeClient
from control.server.ca.keys import load_token_key
from control.server.ca.shared_key import SHARED_NAME, share_token_key
from tests.support.kube.client import with_client
from tests.support.kube.server import KubeServer, serving
from tests.support.kube.status import refusal

NAMESPACE = "tulle-system"


@pytest.fixture
def kube() -> Iterator[KubeServer]:
    with serving() as server:
        server.namespace(NAMESPACE)
        yield server


def share(kube: KubeServer, folder: Path) -> bytes:
    async def act(client: KubeClient) -> None:
        await share_token_key(client, NAMESPACE, folder)

    with_client(kube, act)
    return load_token_key(folder)


def test_all_replicas_have_the_key_of_the_first(kube: KubeServer, tmp_path: Path) -> None:
    mine = load_token_key(tmp_path / "a")
    assert share(kube, tmp_path / "a") == mine
    load_token_key(tmp_path / "b")
    assert share(kube, tmp_path / "b") == mine
    assert share(kube, tmp_path / "c") == mine
    assert (tmp_path / "c" / "token-key").stat().st_mode & 0o777 == 0o600
    secret = kube.get("v1", "Secret", SHARED_NAME, NAMESPACE)
    assert secret is not None
    assert base64.b64decode(secret["data"]["token-key"]) == mine


def test_one_that_is_slower_takes_the_others(kube: KubeServer, tmp_path: Path) -> None:
    first = share(kube, tmp_path / "a")
    kube.fail("GET .*", refusal(404, "NotFound", "not yet"), times=1)
    assert share(kube, tmp_path / "b") == first


@pytest.mark.parametrize("code", [403, 503])
def test_without_it_a_replica_has_its_own(
    kube: KubeServer, tmp_path: Path, caplog: pytest.LogCaptureFixture, code: int
) -> None:
    kube.fail(".*", refusal(code, "x", "no"))
    assert share(kube, tmp_path) == load_token_key(tmp_path)
    assert "token_key.not_shared" in caplog.text


@pytest.mark.parametrize("data", [{}, {"token-key": "?"}, {"token-key": "YQ=="}])
def test_a_secret_without_a_key_is_told_and_not_taken(
    kube: KubeServer, tmp_path: Path, caplog: pytest.LogCaptureFixture, data: dict[str, str]
) -> None:
    mine = load_token_key(tmp_path)
    metadata = {"name": SHARED_NAME, "namespace": NAMESPACE}
    kube.put({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": data})
    assert share(kube, tmp_path) == mine
    assert "token_key.not_shared" in caplog.text
