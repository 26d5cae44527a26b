"""All that a control plane does with an API server besides reading objects: who its callers are,
where its CA lives, and what it writes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from control.kit.clock import Clock
from control.kube.access import ClusterAccess
from control.kube.client import KubeClient
from control.model.address import Address
from control.server.ca.authorities import Authorities
from control.server.ca.copy import COPY_NAME, AuthorityCopy
from control.server.ca.records import RotationRecords
from control.server.ca.shared_key import share_token_key
from control.server.ca.stored import StoredAuthority
from control.server.callers.accounts import BoundPod, node_accounts
from control.server.callers.outage import NAME as KNOWN_NAME
from control.server.callers.outage import KnownCallers
from control.server.callers.reviews import ClusterReviews, TokenReviews
from control.server.callers.speakers import IsWaypoint, no_waypoint
from control.server.callers.tokens import EitherTokens, NodeTokens
from control.server.compile.settings import Settings
from control.server.leader.drains import DrainDuty
from control.server.leader.election import Election
from control.server.leader.marks import CaptureMarks
from control.server.leader.notices import NoticeDuty
from control.server.leader.root_news import RootNewsDuty
from control.server.leader.roots import RootsDuty
from control.server.leader.route_statuses import RouteStatusDuty
from control.server.leader.statuses import StatusDuty
from control.server.leader.views import Views
from control.server.leader.writer import Writer
from control.server.metrics import Metrics
from control.server.sources.captured import CapturedSet
from control.server.sources.objects import PodObject
from control.server.xds.publish import Publisher
from control.server.xds.replicas import LABELS, replica_addresses


@dataclass(frozen=True, slots=True)
class ClusterConfig:
    """`namespace` is that of the install; `identity` no other replica's. `accounts` are those of
    agents and ztunnels. `ca_secret`: an operator's choice, or empty. `ca_in_state`: the CA is in
    the state folder, as without a cluster."""

    access: ClusterAccess
    namespace: str
    identity: str
    accounts: tuple[str, ...]
    audience: str
    ca_secret: str = ""
    ca_in_state: bool = False


class ClusterSide:
    """Needs its `client` open."""

    def __init__(self, config: ClusterConfig, metrics: Metrics, clock: Clock) -> None:
        self.config = config
        self.client = KubeClient(config.access)
        self.metrics = metrics
        self._clock = clock
        self._is_waypoint: IsWaypoint = no_waypoint
        self._accounts = node_accounts(
            config.namespace,
            config.accounts,
            config.audience,
            lambda key: self._is_waypoint(key),
        )
        self.election = Election(self.client, config.namespace, config.identity, clock)

    def stored(
        self, settings: Settings, carried: timedelta, folder: Path
    ) -> StoredAuthority | None:
        """The CA's Secret, unless the CA is in the state folder. `carried`: the longest life of a
        leaf; `folder` takes its copy."""
        config = self.config
        if config.ca_in_state:
            return None
        return StoredAuthority(
            self.client,
            config.namespace,
            config.ca_secret,
            settings.trust_domain,
            self._clock,
            carried,
            AuthorityCopy(folder / COPY_NAME, self.client.access.origin),
            RotationRecords(self.client, config.namespace),
            is_leaving=settings.release_all,
        )

    async def share_tokens(self, state: Path) -> None:
        """One key of node tokens for all replicas."""
        await share_token_key(self.client, self.config.namespace, state)

    def know_callers(self, state: Path, publisher: Publisher) -> KnownCallers:
        """Callers of before, for as long as the API server is away; which accounts are those of
        waypoints is what is published."""
        self._is_waypoint = publisher.is_waypoint

        def node_of(pod: BoundPod) -> str:
            found = publisher.mesh.residents.with_uid(pod.uid)
            return found[-1].pod.node if found else ""

        origin = self.client.access.origin
        return KnownCallers(state / KNOWN_NAME, origin, self._accounts, node_of, self._clock)

    def authenticator(self, own: NodeTokens, known: KnownCallers) -> EitherTokens:
        asks = ClusterReviews(self.client, self._accounts.audience)
        reviews = TokenReviews(asks, self._accounts, known, metrics=self.metrics, clock=self._clock)
        return EitherTokens(own, reviews)

    def mark_captures(
        self, captured: CapturedSet, publisher: Publisher, has_agent: Callable[[str], bool]
    ) -> CaptureMarks:
        """Marks of captured pods, told of every report from now on. `has_agent(node)`: its agent
        reports to us."""

        async def released(node: str, uids: frozenset[str]) -> None:
            captured.drop(node, uids)
            await publisher.tell_captures(uids)

        def pod_of(uid: str) -> PodObject | None:
            found = publisher.mesh.residents.with_uid(uid)
            return found[-1].stated if found else None

        marks = captured.marks = CaptureMarks(
            self.client,
            pod_of,
            has_agent,
            released,
            leads=self.election.holds,
            metrics=self.metrics,
            clock=self._clock,
        )
        return marks

    def replicas(self, publisher: Publisher) -> Callable[[], tuple[Address, ...]]:
        """Addresses of all replicas, as they are when it is called."""
        residents, namespace = publisher.mesh.residents, self.config.namespace
        return lambda: replica_addresses(residents.stated_in(namespace, LABELS))

    def leader(self) -> dict[str, object]:
        """For the status page."""
        leads = self.election.holds()
        return {"identity": self.config.identity, "leads": leads, "leader": self.election.leader}

    def writer(self, publisher: Publisher, authorities: Authorities) -> Writer:
        """All that the one who is elected does."""
        config, client, clock = self.config, self.client, self._clock
        views = Views(publisher, config.namespace)

        def ours() -> list[PodObject]:
            return publisher.mesh.residents.stated_in(config.namespace)

        news = RootNewsDuty(client, ours, config.namespace)
        duties = (
            RootsDuty(
                client, views.namespaces, lambda: authorities.current.root_pem, news.published
            ),
            news,
            StatusDuty(client, clock, views.conditions),
            RouteStatusDuty(client, clock, views.routes),
            NoticeDuty(client, clock, config.identity, views.conditions),
            DrainDuty(client, ours, config.namespace),
        )
        return Writer(self.election, duties, self.metrics, clock)
