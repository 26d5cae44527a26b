"""The parts of the control plane, put together: wired, but idle."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final

from control.kit.clock import SystemClock
from control.kit.errors import ConfigError
from control.model.identity import SpiffeId
from control.server.ca.authorities import Authorities
from control.server.ca.authority import Authority
from control.server.ca.keys import load_authority, load_token_key, publish_root
from control.server.ca.requests import CertificateService
from control.server.callers.arrivals import Arrivals
from control.server.callers.door import Door
from control.server.callers.outage import KnownCallers
from control.server.callers.revocations import NAME, RevocationFile
from control.server.callers.tokens import Authenticator, NodeTokens, subject_of
from control.server.cluster import ClusterConfig, ClusterSide
from control.server.compile.settings import Settings
from control.server.front.listener import capacity
from control.server.leader.marks import CaptureMarks
from control.server.metrics import Metrics
from control.server.sources.captured import CapturedSet
from control.server.sources.directory import DirectorySource, is_folder
from control.server.sources.kept import Kept
from control.server.sources.kubernetes import KubernetesSource
from control.server.sources.lasting import GONE_SHARE, LastingSource, ObjectSource
from control.server.sources.state_file import StateFile
from control.server.xds.publish import Publisher
from control.server.xds.reports import EnrolmentService
from control.server.xds.streams import DeltaService

STATE_NAME: Final = "last-state"  # in the state folder


@dataclass(frozen=True, slots=True)
class PlaneConfig:
    """Objects come from a folder of manifests or from an API server: one of the two is set."""

    manifests: Path | None
    state: Path
    listen: tuple[str, ...]
    dns_names: tuple[str, ...]
    admin: str
    metrics: str
    cert_ttl_max: timedelta
    settings: Settings
    cluster: ClusterConfig | None = None
    gone_share: float = GONE_SHARE  # so much of a folder may go at once

    def serving_names(self) -> list[str]:
        """Names for the port's certificate: the given ones, and every concrete address we listen
        on."""
        names = list(self.dns_names)
        for where in self.listen:
            host = where.rpartition(":")[0].strip("[]")
            try:
                if not ipaddress.ip_address(host).is_unspecified:
                    names.append(host)
            except ValueError:
                names.append(host)
        return list(dict.fromkeys([*names, "127.0.0.1", "::1"]))


@dataclass(frozen=True, slots=True)
class Plane:
    """The parts, wired but idle."""

    config: PlaneConfig
    tokens: NodeTokens
    clock: SystemClock
    metrics: Metrics
    authorities: Authorities
    arrivals: Arrivals
    door: Door
    publisher: Publisher
    cluster: ClusterSide | None
    marks: CaptureMarks | None
    known: KnownCallers | None
    source: LastingSource
    delta: DeltaService
    csr: CertificateService
    enrolment: EnrolmentService


def assemble(
    config: PlaneConfig, cluster: ClusterSide | None = None, authority: Authority | None = None
) -> Plane:
    """Read or create the files on disk, and wire the parts. `authority` is the cluster's, when it
    has one. Raises ConfigError."""
    file = config.state / STATE_NAME
    if config.manifests is not None and not is_folder(config.manifests) and not file.exists():
        raise ConfigError(f"--manifests {config.manifests}: not a folder")
    clock, settings = SystemClock(), config.settings
    metrics = Metrics() if cluster is None else cluster.metrics
    config.state.mkdir(mode=0o755, parents=True, exist_ok=True)
    folder = config.state / "ca"
    is_new = authority is None and not (folder / "ca.pem").exists()
    if authority is None:
        authority = load_authority(folder, settings.trust_domain, clock)
    else:
        publish_root(folder, authority)
    authorities = Authorities(authority, metrics=metrics, clock=clock, carried=config.cert_ttl_max)
    revocations = RevocationFile(config.state / NAME)
    key, subject = load_token_key(config.state), subject_of(settings.root_namespace)
    captured = CapturedSet(config.state / "captured", is_new=is_new, is_shared=cluster is not None)
    publisher = Publisher(settings, captured, metrics, clock)
    tokens = NodeTokens(key, subject, clock, revocations.now, publisher.is_waypoint)
    arrivals = Arrivals(metrics, clock, capacity())
    verifier: Authenticator = tokens
    known = None
    if cluster is not None:
        known = cluster.know_callers(config.state, publisher)
        verifier = cluster.authenticator(tokens, known)
    door = Door(verifier, arrivals)

    def runs(node: str, identity: SpiffeId) -> bool:
        wanted = (node, identity.namespace, identity.service_account)
        return wanted in publisher.mesh.identities

    csr = CertificateService(
        authorities,
        settings.trust_domain,
        config.cert_ttl_max,
        runs,
        door=door,
        metrics=metrics,
        clock=clock,
    )
    delta = DeltaService(publisher, door, arrivals.received, metrics, clock)
    enrolment = EnrolmentService(captured, publisher, door, clock)
    marks = None
    if cluster is not None:
        marks = cluster.mark_captures(captured, publisher, delta.has_agent)
        enrolment.addresses = cluster.replicas(publisher)
    return Plane(
        config=config,
        tokens=tokens,
        clock=clock,
        metrics=metrics,
        authorities=authorities,
        arrivals=arrivals,
        door=door,
        publisher=publisher,
        cluster=cluster,
        marks=marks,
        known=known,
        source=_source(config, cluster, clock, metrics),
        delta=delta,
        csr=csr,
        enrolment=enrolment,
    )


def _source(
    config: PlaneConfig, cluster: ClusterSide | None, clock: SystemClock, metrics: Metrics
) -> LastingSource:
    found: ObjectSource
    if cluster is not None:
        found = source = KubernetesSource(cluster.client, clock)
        metrics.follow(source.states)
        origin = cluster.client.access.origin
    elif config.manifests is not None:
        found = DirectorySource(config.manifests, clock, Kept(config.state / "last-good"))
        origin = str(config.manifests.absolute())
    else:
        raise ConfigError("neither manifests nor an API server to read objects from")
    gone_share = config.gone_share if cluster is None else 1.0  # an API server says what there is
    lasting = LastingSource(found, StateFile(config.state / STATE_NAME, origin), clock, gone_share)
    metrics.show_age(lambda: lasting.standing.age_s)
    return lasting
