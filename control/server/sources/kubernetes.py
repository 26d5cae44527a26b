"""A Kubernetes API server as the source: one reflector a kind, and snapshots of what changed.

Nothing is given out before every kind was listed whole: policies that are not known yet must not
read as none. Later a kind that cannot be followed keeps what was known of it, and says so.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace

from control.kit.backoff import Backoff
from control.kit.clock import Clock
from control.kit.errors import MeshError
from control.kit.log import event
from control.kube import resources
from control.kube.client import KubeClient
from control.kube.errors import ApiError, Unreachable
from control.kube.reflection import RETRY_MAX_S, RETRY_S, Reflection
from control.kube.reflector import Reflector
from control.kube.resources import Resource
from control.server.sources.cluster import PLACE, Cluster
from control.server.sources.problem import UNREADABLE, Problem
from control.server.sources.snapshot import Snapshot

log = logging.getLogger("source")

# After a quiet time news goes out at once, then this often: a rollout changes pods all the time.
EVERY_S = 0.05
# A watch may break at any time; it is a problem when it stays so.
FAILURES_MIN = 3
WAITING_LINE_S = 10.0
# News waits for kinds that are behind at most this long; it is looked after this often.
HOLD_S, LOOK_S = 15.0, 5.0
SETTLE_S = 0.5  # from an answer to all that was missed


@dataclass(frozen=True, slots=True)
class Watched:
    """`resources`: the same kind in several versions, the best first. `is_needed`: a mesh without
    it would be another one, so nothing is served until it was read."""

    resources: tuple[Resource, ...]
    may_be_absent: bool = False
    is_needed: bool = True

    @property
    def kind(self) -> str:
        return self.resources[0].kind

    @property
    def definition(self) -> str:
        """Path of the CRD."""
        first = self.resources[0]
        return resources.CRDS.path(name=f"{first.plural}.{first.group}")


def _defined(resource: Resource, before: str = "v1beta1") -> Watched:
    """A kind that somebody has to define. `before`: the version that older definitions have."""
    older = replace(resource, version=before)
    return Watched((resource, older), may_be_absent=True)


WATCHED = (
    Watched((resources.NAMESPACES,)),
    Watched((resources.PODS,)),
    Watched((resources.SERVICES,)),
    Watched((resources.ENDPOINT_SLICES,)),
    _defined(resources.AUTHORIZATION_POLICIES),
    _defined(resources.PEER_AUTHENTICATIONS),
    _defined(resources.GATEWAY_CLASSES),
    _defined(resources.GATEWAYS),
    _defined(resources.HTTP_ROUTES),
    Watched((resources.GRPC_ROUTES,), may_be_absent=True),
    _defined(resources.TCP_ROUTES, "v1alpha2"),
    _defined(resources.REFERENCE_GRANTS),
    Watched((resources.NODES,), is_needed=False),
    Watched((resources.SERVICE_ACCOUNTS,), is_needed=False),
)


class KubernetesSource:
    """`client` has to be open while this is. `retry_s`: the first pause after a failure, and the
    longest."""

    def __init__(
        self,
        client: KubeClient,
        clock: Clock,
        retry_s: tuple[float, float] = (RETRY_S, RETRY_MAX_S),
    ) -> None:
        self._client = client
        self._clock = clock
        self._retry_s = retry_s
        self._hold = Hold(clock)
        self._news = asyncio.Event()
        self._cluster = Cluster(self._news.set)
        self._reflectors = {each.kind: self._reflector(each) for each in WATCHED}

    @property
    def name(self) -> str:
        access = self._client.access
        return f"{access.server} ({access.name})"

    @property
    def trouble(self) -> str:
        """The kinds that are not followed now, and why; empty while all are."""
        found = []
        for each in WATCHED:
            state = self._reflectors[each.kind].state
            if state.trouble is not None and (each.is_needed or not _is_refused(state)):
                found.append(f"{each.kind}: {_reason(state)}")
        return "; ".join(found)

    @property
    def states(self) -> dict[str, Reflection]:
        """By kind, how it is followed."""
        return {kind: each.state for kind, each in self._reflectors.items()}

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[AsyncIterator[Snapshot]]:
        """Follow the API server while the context is open; snapshots, the first once complete."""
        failure: MeshError | OSError | None = None
        async with asyncio.TaskGroup() as tasks:
            running = [
                tasks.create_task(each.run(), name=f"kube.{kind}")
                for kind, each in self._reflectors.items()
            ]
            try:
                yield self._snapshots()
            except (MeshError, OSError) as exc:
                failure = exc  # the caller's own: not to be one of a group
            finally:
                for task in running:
                    task.cancel()
        if failure is not None:
            raise failure

    def _reflector(self, watched: Watched) -> Reflector:
        backoff = Backoff(*self._retry_s, jitter=0.5)
        state = Reflection(len(watched.resources), watched.may_be_absent, backoff=backoff)
        return Reflector(
            self._client,
            [each.path() for each in watched.resources],
            self._cluster.kinds[watched.kind],
            self._clock,
            reflection=state,
            definition=watched.definition,
            changed=self._looked,
            recovered=self._hurry,
        )

    def _hurry(self) -> None:
        """The server answers one: the others need not wait any longer."""
        self._hold.answered()
        for each in self._reflectors.values():
            each.hurry()

    def _looked(self) -> None:
        """A reflector has made a step: a trouble or its end, an object, a whole list."""
        self._news.set()

    async def _snapshots(self) -> AsyncIterator[Snapshot]:
        last: Snapshot | None = None
        told_s = self._clock.monotonic_s()
        while True:
            self._news.clear()
            is_held = False
            waiting = self._waiting()
            if waiting:
                if self._clock.monotonic_s() - told_s >= WAITING_LINE_S:
                    told_s = self._clock.monotonic_s()
                    event(log, logging.WARNING, "source.waiting", kinds=waiting)
            else:
                is_held = self._hold.back(self._lags())
                if is_held and last is not None:
                    problems = self._cluster.problems(self._problems())
                    found = replace(last, changed={}, problems=problems, is_whole=False)
                else:
                    found = self._cluster.snapshot(self._problems())
                    found.doubt = _doubt(found.counts())
                if last is None or found.problems != last.problems or found.changed:
                    last = found
                    yield found
                    await asyncio.sleep(EVERY_S)
            if not self._news.is_set():
                await self._next(SETTLE_S if is_held else LOOK_S)

    async def _next(self, within_s: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self._news.wait()

    def _lags(self) -> bool:
        """True while a kind is behind that may soon catch up. One that is refused is not waited
        for."""
        states = (each.state for each in self._reflectors.values())
        return any(each.trouble is not None and not _is_refused(each) for each in states)

    def _waiting(self) -> str:
        """The kinds without which nothing can be served, with what keeps them."""
        found = []
        for each in WATCHED:
            state = self._reflectors[each.kind].state
            if state.is_synced or (not each.is_needed and _is_refused(state)):
                continue
            found.append(each.kind if state.trouble is None else f"{each.kind} ({state.trouble})")
        return ", ".join(found)

    def _problems(self) -> Iterator[Problem]:
        for kind, reflector in self._reflectors.items():
            state = reflector.state
            if state.trouble is None or state.failures < FAILURES_MIN:
                continue
            effect = "what was known stays in force" if state.is_synced else "it counts as empty"
            message = f"cannot be followed: {_reason(state)}; {effect}"
            yield Problem(PLACE, 0, kind, UNREADABLE, message)


def _doubt(counts: Mapping[str, int]) -> str:
    """No cluster is without namespaces, and only a wrong or wiped one without pods."""
    if not counts["Namespace"]:
        return "the API server names no namespace"
    return "" if counts["Pod"] else "the API server names no pod in any namespace"


def _is_refused(state: Reflection) -> bool:
    return isinstance(state.trouble, ApiError) and state.trouble.code in (401, 403)


def _reason(state: Reflection) -> str:
    """Words that stay the same while it does, so that the problem is told once."""
    trouble = state.trouble
    if isinstance(trouble, ApiError):
        return f"{trouble.code} {trouble.kind}: {trouble.message}"
    if trouble is None or isinstance(trouble, Unreachable):
        return "the API server cannot be reached"  # the log says why, each time anew
    return str(trouble)


class Hold:
    """After an outage the kinds come back one by one: a pod must not come before the policy that
    was made with it. So news waits until all are back, but no kind can make it wait for ever."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._since_s: float | None = None  # when a kind fell behind
        self._answered_s: float | None = None  # when the first came back
        self._last_s = -SETTLE_S  # when the last came back

    def answered(self) -> None:
        """A kind is followed again."""
        self._last_s = self._clock.monotonic_s()
        if self._answered_s is None:
            self._answered_s = self._last_s

    def back(self, lags: bool) -> bool:
        """True if news is to wait now. `lags`: some kind is behind."""
        now_s = self._clock.monotonic_s()
        if not lags and now_s - self._last_s >= SETTLE_S:
            self._since_s = self._answered_s = None
            return False
        if self._since_s is None:
            self._since_s = now_s
        began_s = self._since_s if self._answered_s is None else self._answered_s
        return now_s - began_s < HOLD_S
