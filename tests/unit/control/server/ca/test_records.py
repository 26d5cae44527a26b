"""The record of a change of roots in its Secret: read, written, raced for, and not allowed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from control.kube.client import KubeClient
from control.server.ca.records import RECORD_KEY, RECORD_NAME, RotationRecords
from control.server.ca.rotation import KnownRoot, Rotation
from tests.support.kube.client import with_client
from tests.support.kube.server import KubeServer, serving
from tests.support.kube.status import refusal

NAMESPACE = "tulle-system"
ONE, TWO = (Rotation([KnownRoot(each, 1.5, None)], {"tls.key": "x"}) for each in "ab")


@pytest.fixture
def kube() -> Iterator[KubeServer]:
    with serving() as server:
        server.namespace(NAMESPACE)
        yield server


def test_it_is_made_and_changed_and_read_by_others(kube: KubeServer) -> None:
    async def act(client: KubeClient) -> None:
        mine, theirs = (RotationRecords(client, NAMESPACE) for _ in range(2))
        assert await mine.read() is None
        assert await mine.write(ONE)
        assert await theirs.read() == ONE
        assert await theirs.write(TWO)
        assert await mine.read() == TWO

    with_client(kube, act)


def test_of_two_that_write_one_has_to_read_again(kube: KubeServer) -> None:
    async def act(client: KubeClient) -> None:
        mine, theirs = (RotationRecords(client, NAMESPACE) for _ in range(2))
        for record in (ONE, TWO):
            for each in (mine, theirs):
                await each.read()
            assert await mine.write(record)
            assert not await theirs.write(ONE)

    with_client(kube, act)


@pytest.mark.parametrize("data", [{}, {RECORD_KEY: "?"}, {RECORD_KEY: "W10="}])
def test_a_broken_one_is_told_and_replaced(
    kube: KubeServer, caplog: pytest.LogCaptureFixture, data: dict[str, str]
) -> None:
    metadata = {"name": RECORD_NAME, "namespace": NAMESPACE}
    kube.put({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": data})

    async def act(client: KubeClient) -> None:
        records = RotationRecords(client, NAMESPACE)
        assert await records.read() is None
        assert await records.write(ONE)
        assert await records.read() == ONE

    with_client(kube, act)
    assert "ca.record_broken" in caplog.text


def test_without_the_right_there_is_none_and_one_line(
    kube: KubeServer, caplog: pytest.LogCaptureFixture
) -> None:
    kube.fail(".*", refusal(403, "Forbidden", "no"))

    async def act(client: KubeClient) -> None:
        records = RotationRecords(client, NAMESPACE)
        for _ in range(2):
            assert await records.read() is None
            assert await records.write(ONE)

    with_client(kube, act)
    assert caplog.text.count("ca.no_record") == 1
