"""One command's conversation with a cluster: found, opened, ended; its failures in the user's
words."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import ClassVar, TypeVar

from agent.cli.cluster.choice import ClusterChoice
from control.kit.errors import MeshError
from control.kube.client import KubeClient
from control.kube.errors import ApiError, Unreachable
from control.kube.kubeconfig import find_access

MANAGER = "tulle-cli"  # our field manager
T = TypeVar("T")


class NoCluster(MeshError):
    """The cluster could not be asked."""

    reason: ClassVar[str] = "admin"


class ClusterError(MeshError):
    """The cluster said no, or is not as it has to be."""

    reason: ClassVar[str] = "cluster"


def ask(choice: ClusterChoice, act: Callable[[KubeClient], Awaitable[T]]) -> T:
    """The result of `act` on the chosen cluster. MeshError in words that name it."""
    access = find_access(os.environ, choice.kubeconfig, choice.context)

    async def session() -> T:
        async with KubeClient(access) as client:
            return await act(client)

    try:
        return asyncio.run(session())
    except ExceptionGroup as group:
        raise _worded(_first(group), access.name) from group
    except (ApiError, Unreachable) as exc:
        raise _worded(exc, access.name) from exc


def _first(group: ExceptionGroup[Exception]) -> Exception:
    found = group.exceptions[0]
    return _first(found) if isinstance(found, ExceptionGroup) else found


def _worded(exc: Exception, name: str) -> Exception:
    where = f"cluster {name}: " if name else ""
    if isinstance(exc, Unreachable):
        return NoCluster(f"{where}not reachable: {exc}")
    if isinstance(exc, ApiError):
        return ClusterError(f"{where}{words_of(exc)}")
    return exc


def words_of(exc: ApiError) -> str:
    """The API server's words, and what follows from them."""
    if exc.code == 401:
        return f"it does not know you: {exc.message} (are the kubeconfig's credentials still good?)"
    if exc.code == 403:
        return exc.message  # names user, verb and resource
    causes = (
        f" ({'; '.join(exc.causes)})" if exc.causes and exc.causes[0] not in exc.message else ""
    )
    return f"{exc.where}: {exc.message}{causes}" if exc.where else f"{exc.message}{causes}"
