"""A real client of the small API server, for the time of one coroutine."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from control.kube.access import ClusterAccess
from control.kube.client import KubeClient
from control.kube.trust import Trust
from tests.support.kube.server import KubeServer

T = TypeVar("T")
DEADLINE_S = 20.0


def with_client(kube: KubeServer, act: Callable[[KubeClient], Awaitable[T]]) -> T:
    async def whole() -> T:
        async with (
            KubeClient(ClusterAccess(kube.url, Trust())) as client,
            asyncio.timeout(DEADLINE_S),
        ):
            return await act(client)

    return asyncio.run(whole())
