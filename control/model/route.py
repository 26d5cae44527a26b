"""Routes of connections and requests through a waypoint or a gateway. Values only, without a word
of any proxy's.

    Waypoint ── its fronts (who may be addressed, and what then) ── backends (who serves it)

Shapes follow the Gateway API (v1.6, HTTPRoute), into which other APIs are read as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from types import MappingProxyType
from typing import NamedTuple

from control.model.address import Address
from control.model.http_policy import HttpPolicy
from control.model.identity import SpiffeId
from control.model.workload import Locality

NOWHERE = Locality()


class WaypointKey(NamedTuple):
    """Namespace and name of its Gateway object."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


class Layer(Enum):
    """A front's bytes, as they are taken. HTTP is 1.1 or 2, as the client speaks."""

    TCP = "tcp"
    HTTP = "http"


class TextMatchKind(Enum):
    EXACT = "exact"
    REGEX = "regex"  # RE2, of the whole value


@dataclass(frozen=True, slots=True)
class TextMatch:
    """A named value of a request: a header (its name in lower case) or a query parameter."""

    name: str
    value: str
    kind: TextMatchKind = TextMatchKind.EXACT


class PathKind(Enum):
    EXACT = "exact"
    PREFIX = "prefix"  # whole segments: /a is /a and /a/b, never /ab; never ends in a slash but "/"
    REGEX = "regex"


@dataclass(frozen=True, slots=True)
class RequestMatch:
    """All that is said has to hold; an empty field is not said."""

    path: str = "/"
    path_kind: PathKind = PathKind.PREFIX
    method: str = ""
    headers: tuple[TextMatch, ...] = ()
    query: tuple[TextMatch, ...] = ()


@dataclass(frozen=True, slots=True)
class HeaderChange:
    """In this order: removed, set, added."""

    remove: tuple[str, ...] = ()
    set: tuple[tuple[str, str], ...] = ()
    add: tuple[tuple[str, str], ...] = ()


NO_CHANGE = HeaderChange()


@dataclass(frozen=True, slots=True)
class Rewrite:
    """A new host and path; the path as a whole, or only the prefix that the match asks for."""

    hostname: str = ""
    path: str | None = None
    prefix: str | None = None


@dataclass(frozen=True, slots=True)
class Redirect:
    """Empty fields stay those of the request. Port 0: the scheme's own, if there is a scheme, or
    else the listener's."""

    status: int = 302
    scheme: str = ""
    hostname: str = ""
    port: int = 0
    path: str | None = None
    prefix: str | None = None


@dataclass(frozen=True, slots=True)
class Cors:
    origins: tuple[str, ...] = ()  # may have one `*` each
    methods: tuple[str, ...] = ()
    headers: tuple[str, ...] = ()
    expose: tuple[str, ...] = ()
    max_age_s: int = 5
    credentials: bool = False


@dataclass(frozen=True, slots=True)
class Retry:
    """`attempts` are tries after the first one."""

    attempts: int = 2
    codes: tuple[int, ...] = ()
    backoff_s: float = 0.025


@dataclass(frozen=True, slots=True)
class Mirror:
    backend: str
    share: float = 1.0  # a part of the requests, 0 to 1


@dataclass(frozen=True, slots=True)
class Destination:
    """`backend` is a key of `Waypoint.backends`; "" is one that cannot be had, which answers 500
    for its share of the requests."""

    backend: str
    weight: int = 1
    request_headers: HeaderChange = NO_CHANGE
    response_headers: HeaderChange = NO_CHANGE


@dataclass(frozen=True, slots=True)
class HttpRule:
    """One match and what follows. Rules stand in their order of precedence: the first that matches
    decides. No destinations and no redirect: 500, as of a rule whose backends cannot be had.
    Timeouts in seconds; None: none is said; 0: none at all. `hosts`: empty for every host, else
    names of which the first label may be `*`."""

    name: str  # namespace/route/rule/match, for logs and people
    match: RequestMatch = RequestMatch()
    hosts: tuple[str, ...] = ()
    destinations: tuple[Destination, ...] = ()
    redirect: Redirect | None = None
    rewrite: Rewrite | None = None
    request_headers: HeaderChange = NO_CHANGE
    response_headers: HeaderChange = NO_CHANGE
    mirrors: tuple[Mirror, ...] = ()
    cors: Cors | None = None
    retry: Retry | None = None
    timeout_s: float | None = None
    try_timeout_s: float | None = None


@dataclass(frozen=True, slots=True)
class Front:
    """One port of a service, as clients address it; or of a pod: then `service` and `hostname` are
    empty.

    `rules` None: nobody has a route for it, everything goes to `backend`. Else the rules are all
    there is: no rule matches, 404. For TCP, `destinations` None means the same, and () closes.
    `policies`: those that apply, DENY before ALLOW is the enforcer's matter.
    """

    name: str  # "namespace/service:port", or "namespace/pod.pod:port": unique
    service: str  # Service.key: "namespace/hostname"
    hostname: str
    addresses: tuple[Address, ...]
    port: int
    layer: Layer
    backend: str
    rules: tuple[HttpRule, ...] | None = None
    destinations: tuple[Destination, ...] | None = None
    policies: tuple[HttpPolicy, ...] = ()


class Spoken(Enum):
    """The language of a backend's servers. ANY: the version that the client has."""

    HTTP1 = "http1"
    HTTP2 = "http2"
    ANY = "any"
    TCP = "tcp"


@dataclass(frozen=True, slots=True)
class BackendEndpoint:
    """`identity`: exactly who has to answer, by HBONE; None: outside the mesh, plaintext."""

    address: Address
    port: int
    identity: SpiffeId | None = None
    locality: Locality = NOWHERE
    weight: int = 1
    healthy: bool = True


@dataclass(frozen=True, slots=True)
class Backend:
    """The endpoints of one port of a service."""

    name: str  # "namespace/service:port": unique
    service: str
    spoken: Spoken
    endpoints: tuple[BackendEndpoint, ...] = ()


@dataclass(frozen=True, slots=True)
class Waypoint:
    """Everything that one Gateway's processes are told; they run as `account`."""

    key: WaypointKey
    account: SpiffeId
    fronts: Mapping[str, Front] = field(default_factory=lambda: MappingProxyType({}))
    backends: Mapping[str, Backend] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True)
class WaypointDelta:
    """Differences of one waypoint; None: gone. `is_gone`: the waypoint itself."""

    key: WaypointKey
    account: SpiffeId
    fronts: Mapping[str, Front | None] = field(default_factory=lambda: MappingProxyType({}))
    backends: Mapping[str, Backend | None] = field(default_factory=lambda: MappingProxyType({}))
    is_gone: bool = False
