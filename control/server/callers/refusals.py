"""Every reason for which the control plane refuses a call: its word and its meaning.

Counters, log lines and docs/refusals.md are made from this table. Callers hear less: an opaque word
for whatever is about their token or their rights.
"""

from __future__ import annotations

from enum import unique

from control.kit.reasons import WordedReason


@unique
class CallRefusal(WordedReason):
    # The caller's token
    TOKEN_MISSING = "token_missing", "the call has no bearer token"
    TOKEN_TOO_LONG = "token_too_long", "the token is longer than any that we issue"
    TOKEN_MALFORMED = "token_malformed", "the token is not a JWT"
    TOKEN_SIGNATURE = "token_signature", "the token is not signed with our key"
    TOKEN_HEADER = "token_header", "the token's header is not the one that we issue"
    TOKEN_EXPIRED = "token_expired", "the token has expired, or has no end"
    TOKEN_AUDIENCE = "token_audience", "the token is for another service"
    TOKEN_SUBJECT = (
        "token_subject",
        "the token is for an account of neither a node nor a waypoint",
    )
    TOKEN_NODE = "token_node", "the token names no node"
    TOKEN_REVOKED = "token_revoked", "the token, or all that its node had by then, was revoked"
    TOKEN_REVIEW = "token_review", "the API server does not vouch for the token"
    TOKEN_POD = "token_pod", "the token is bound to no pod, or to one that is gone"
    REVIEWS_RATE = "reviews_rate", "too many tokens that the API server has to be asked about"
    REVIEWS_AWAY = "reviews_away", "the API server could not be asked about the token"

    # Connections
    TLS = "tls", "the client failed the TLS handshake, or broke TLS"
    TLS_VERSION = "tls_version", "the client does not speak TLS 1.3"
    HELLO_TOO_LARGE = "hello_too_large", "the client's TLS hello is longer than any has to be"
    TINY_RECORDS = "tiny_records", "the client sends TLS records that carry next to nothing"
    ALPN = "alpn", "the client does not speak HTTP/2"
    HANDSHAKE_TIMEOUT = "handshake_timeout", "the TLS handshake took too long"
    ADMISSION_TIMEOUT = "admission_timeout", "the connection showed no good token in time"
    DISPLACED = "displaced", "the oldest connection without a token, when there were too many"
    REFUSED_CALLS_MAX = "refused_calls_max", "every call of the connection had a bad token"
    CONNECTIONS_MAX = "connections_max", "the node has too many connections"
    PREFACE = "preface", "the client does not begin as HTTP/2 does"
    COMPRESSED = "compressed", "the client compresses its messages"
    LARGE_MESSAGES = "large_messages", "several large messages come on one connection at once"
    HTTP2_STREAMS_MAX = "http2_streams_max", "the client passes over the limit of HTTP/2 streams"
    SLOW_MESSAGE = "slow_message", "a large message took too long to arrive"
    STALLED = "stalled", "the client takes nothing of what it is sent"
    GRPC_UNREACHABLE = "grpc_unreachable", "our own gRPC server took no connection"

    # Every method
    CALLS_MAX = "calls_max", "the node has too many calls under way"
    MESSAGE_TOO_LARGE = "message_too_large", "the message is larger than the method's largest"
    SILENT = "silent", "no message came in time"
    NOT_A_NODE = "not_a_node", "only nodes may call this, and the caller is a waypoint"
    OTHER_NODE = "other_node", "the caller claims to be another node than its token's"
    WIRE = "wire", "the message cannot be read"

    # Certificates
    CERTIFICATES_RATE = "certificates_rate", "the node asks for too many certificates a second"
    MESSAGE_MALFORMED = "message_malformed", "the certificate request's message cannot be read"
    CSR_TOO_LARGE = "csr_too_large", "the CSR is larger than 16 KiB"
    CSR_MALFORMED = "csr_malformed", "the CSR cannot be read"
    CSR_SIGNATURE = "csr_signature", "the CSR is not signed with its own key"
    CSR_KEY = "csr_key", "the CSR's key is of a kind or size that we do not sign"
    CSR_OTHER_NAMES = "csr_other_names", "the CSR has names that are not URIs"
    CSR_SEVERAL_IDENTITIES = "csr_several_identities", "the CSR asks for several identities"
    CSR_OTHER_IDENTITY = "csr_other_identity", "the CSR and the call ask for different identities"
    IDENTITY_MALFORMED = "identity_malformed", "the identity is not a SPIFFE id"
    OTHER_TRUST_DOMAIN = "other_trust_domain", "the identity is of another trust domain"
    NO_SUCH_POD_ON_NODE = (
        "no_such_pod_on_node",
        "no pod with this identity runs on the caller's node",
    )
    NOT_ITS_OWN = "not_its_own", "a waypoint asks for another identity than its own"

    # xDS streams
    STREAMS_MAX = "streams_max", "the node has too many streams, or all nodes have"
    TOO_MANY_NAMES = "too_many_names", "the client subscribes to too many names"
    TOO_MANY_TYPES = "too_many_types", "the client asks for too many types that are not served"
    BAD_NAME = "bad_name", "a name or a type is longer than any that there is"
    NAMES_MAX = "names_max", "the node's streams name too much that is not in the mesh"
    BEHIND = "behind", "the client did not take in what changed while too much else did"
    SLOW_READER = "slow_reader", "the client took too long to take a response"

    # Capture reports
    BAD_REPORT = "bad_report", "the report has too many pods, or one with too long a uid"
    CAPTURES_RATE = "captures_rate", "the node reports too many changes a second"
