"""Every reason for which a connection is refused or fails: its word, its flag, its meaning.

Counters, log lines and docs/refusals.md are made from this table. Words are stable: people have
them in alerts and dashboards.
"""

from __future__ import annotations

from enum import Enum, unique
from typing import Final


class Flag(Enum):
    """`response_flags` of Istio's TCP metrics."""

    NONE = "-"
    DENY = "DENY"
    CONNECT = "CONNECT"
    TLS_FAILURE = "TLS_FAILURE"
    H2_HANDSHAKE_FAILURE = "H2_HANDSHAKE_FAILURE"
    NETWORK_POLICY = "NETWORK_POLICY"
    IDENTITY_ERROR = "IDENTITY_ERROR"


@unique
class Reason(Enum):
    """`word` is the log field and the metric label. `flag` is NONE where nothing but the refusal is
    recorded, because the connection's two ends are not known yet."""

    # Both directions
    NOT_SYNCED = "not_synced", Flag.CONNECT, "the mesh's state has not arrived yet"
    UNKNOWN_LOCAL_WORKLOAD = (
        "unknown_local_workload",
        Flag.CONNECT,
        "the control plane has not told of this node's pod yet",
    )
    RECURSION = "recursion", Flag.CONNECT, "the connection would come back to the ztunnel itself"
    NO_CERTIFICATE = (
        "no_certificate",
        Flag.IDENTITY_ERROR,
        "the local pod's identity has no certificate",
    )
    CONNECT_FAILED = (
        "connect_failed",
        Flag.CONNECT,
        "the other node, the destination, or the local app cannot be reached",
    )
    HANDSHAKE_TIMEOUT = "handshake_timeout", Flag.TLS_FAILURE, "the TLS handshake took too long"
    ABORTED = "aborted", Flag.CONNECT, "the pod was deleted or the ztunnel ended before it was open"
    POLICY_CHANGED = (
        "policy_changed",
        Flag.DENY,
        "an open connection is no longer allowed, and was cut",
    )
    CONNECTIONS_MAX = (
        "connections_max",
        Flag.CONNECT,
        "the pod, the peer or the address has too many connections",
    )
    UNUSABLE_CERTIFICATE = (
        "unusable_certificate",
        Flag.NONE,
        "a certificate for a local identity cannot be used",
    )

    # Outbound
    NO_ORIGINAL_DESTINATION = (
        "no_original_destination",
        Flag.NONE,
        "the kernel does not know what the app dialled",
    )
    ADDRESS_TIMEOUT = (
        "address_timeout",
        Flag.CONNECT,
        "the control plane did not say in time who has the address",
    )
    ADDRESS_UNASKED = (
        "address_unasked",
        Flag.CONNECT,
        "the control plane is away, and the address may be in the mesh or not",
    )
    ADDRESSES_MAX = (
        "addresses_max",
        Flag.CONNECT,
        "the pod has dialled too many addresses of late",
    )
    LOOKUPS_MAX = (
        "lookups_max",
        Flag.CONNECT,
        "too many of the pod's connections wait for the control plane's word about an address",
    )
    NO_HEALTHY_UPSTREAM = (
        "no_healthy_upstream",
        Flag.CONNECT,
        "the service has no healthy endpoint",
    )
    NO_SERVICE_PORT = "no_service_port", Flag.CONNECT, "the service has no such port"
    WAYPOINT_UNAVAILABLE = (
        "waypoint_unavailable",
        Flag.CONNECT,
        "the destination's waypoint is not known, or has no healthy endpoint",
    )
    HOSTNAME_UNSUPPORTED = (
        "hostname_unsupported",
        Flag.CONNECT,
        "the service's endpoints are DNS names, which this ztunnel does not resolve",
    )
    NETWORK_GATEWAY_UNSUPPORTED = (
        "network_gateway_unsupported",
        Flag.CONNECT,
        "the destination is in another network, behind a gateway",
    )
    POOL_FULL = "pool_full", Flag.CONNECT, "too many connections wait for a tunnel to that pod"
    POOL_TIMEOUT = "pool_timeout", Flag.CONNECT, "no tunnel had room in time"
    TLS_FAILED = (
        "tls_failed",
        Flag.TLS_FAILURE,
        "the other node's ztunnel failed the TLS handshake, or refused our certificate",
    )
    HTTP2_FAILED = "http2_failed", Flag.H2_HANDSHAKE_FAILURE, "the tunnel broke HTTP/2"
    TUNNEL_LOST = "tunnel_lost", Flag.CONNECT, "the tunnel was cut before the peer answered"
    STREAM_REFUSED = "stream_refused", Flag.CONNECT, "the peer refused the stream, several times"
    STREAM_RESET = "stream_reset", Flag.CONNECT, "the peer reset the stream before it answered"
    RESPONSE_TIMEOUT = "response_timeout", Flag.CONNECT, "the peer did not answer in time"
    STATUS_1XX = "status_1xx", Flag.CONNECT, "the peer answered 1xx"
    STATUS_2XX = "status_2xx", Flag.CONNECT, "the peer answered 2xx, but not 200"
    STATUS_3XX = "status_3xx", Flag.CONNECT, "the peer answered 3xx"
    STATUS_4XX = "status_4xx", Flag.CONNECT, "the peer answered 4xx: 401 is its policy's no"
    STATUS_5XX = "status_5xx", Flag.CONNECT, "the peer answered 5xx: it does not know the pod yet"
    APP_LEFT = "app_left", Flag.CONNECT, "the app reset its connection before it was open"

    # Inbound
    POLICY = "policy", Flag.DENY, "policy does not allow the connection"
    UNKNOWN_POLICY = (
        "unknown_policy",
        Flag.DENY,
        "the pod names a policy that the control plane has not sent",
    )
    HANDSHAKE_DISPLACED = (
        "handshake_displaced",
        Flag.NONE,
        "the oldest handshake of whoever had most of them, when there were too many",
    )
    TUNNELS_MAX = "tunnels_max", Flag.NONE, "the peer has too many tunnels, none of them idle"
    ONLY_REFUSALS = (
        "only_refusals",
        Flag.NONE,
        "the peer's tunnel was ended: thousands of its requests were refused, and none let in",
    )
    TLS_HANDSHAKE = "tls_handshake", Flag.NONE, "the client failed the TLS handshake"
    HELLO_TOO_LARGE = (
        "hello_too_large",
        Flag.NONE,
        "the peer's part of the TLS handshake is longer than any has to be",
    )
    PEER_CERTIFICATE = (
        "peer_certificate",
        Flag.NONE,
        "the client's certificate does not lead to a root that we trust, or is not valid now",
    )
    PEER_WITHOUT_SPIFFE_ID = (
        "peer_without_spiffe_id",
        Flag.NONE,
        "the peer's certificate names no SPIFFE id",
    )
    PEER_TRUST_DOMAIN = "peer_trust_domain", Flag.NONE, "the client is of another trust domain"
    PEER_IDENTITY = "peer_identity", Flag.NONE, "the peer is not the one that was asked for"
    PEER_ALPN = "peer_alpn", Flag.NONE, "the peer does not speak HTTP/2"
    PEER_RESUMED = "peer_resumed", Flag.NONE, "the peer was not verified in this handshake"
    TLS_BROKEN = "tls_broken", Flag.NONE, "the peer broke TLS after the handshake"
    SILENT_RECORDS = (
        "silent_records",
        Flag.NONE,
        "the peer sends TLS records with next to no data, such as key updates, without end",
    )
    HTTP2 = "http2", Flag.NONE, "the client broke HTTP/2"
    NOT_CONNECT = "not_connect", Flag.CONNECT, "the request is not a CONNECT"
    BAD_AUTHORITY = "bad_authority", Flag.CONNECT, "the request's authority cannot be understood"
    DESTINATION_MISMATCH = (
        "destination_mismatch",
        Flag.CONNECT,
        "the request asks for something else than what listens at the accepted address",
    )
    UNKNOWN_HOSTNAME = "unknown_hostname", Flag.CONNECT, "no service has the requested name"
    UNKNOWN_PORT = "unknown_port", Flag.CONNECT, "the requested service has no such port here"
    APPLICATION_TUNNEL_UNSUPPORTED = (
        "application_tunnel_unsupported",
        Flag.CONNECT,
        "the workload asks for the PROXY protocol",
    )

    word: str
    flag: Flag
    meaning: str

    def __init__(self, word: str, flag: Flag, meaning: str) -> None:
        self.word = word
        self.flag = flag
        self.meaning = meaning

    def __str__(self) -> str:
        return self.word

    @staticmethod
    def of_status(status: int) -> Reason:
        """Reason for a peer's answer other than 200; `status` is from 100 to 599."""
        return Reason[f"STATUS_{status // 100}XX"]


# Reasons that are the asker's own doing, whose work it owes. A destination that is down, or a mesh
# that is late, is not.
BLAMED: Final = frozenset(
    Reason[name]
    for name in (
        "ADDRESSES_MAX",
        "BAD_AUTHORITY",
        "CONNECTIONS_MAX",
        "DESTINATION_MISMATCH",
        "HANDSHAKE_DISPLACED",
        "HTTP2",
        "NOT_CONNECT",
        "NO_ORIGINAL_DESTINATION",
        "NO_SERVICE_PORT",
        "ONLY_REFUSALS",
        "PEER_ALPN",
        "PEER_CERTIFICATE",
        "PEER_TRUST_DOMAIN",
        "PEER_WITHOUT_SPIFFE_ID",
        "POLICY",
        "RECURSION",
        "SILENT_RECORDS",
        "TLS_BROKEN",
        "TLS_HANDSHAKE",
        "TUNNELS_MAX",
        "UNKNOWN_HOSTNAME",
        "UNKNOWN_PORT",
    )
)
