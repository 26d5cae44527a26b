"""Every reason for which the control plane refuses a call: its word and its meaning.

Counters, log lines and docs/refusals.md are made from this table. Callers hear less: an opaque word
for whatever is about their token or their rights.
"""

from __future__ import annotations

from enum import Enum, unique


@unique
class CallRefusal(Enum):
    # The caller's token
    TOKEN_MISSING = "token_missing", "the call has no bearer token"
    TOKEN_TOO_LONG = "token_too_long", "the token is longer than any that we issue"
    TOKEN_MALFORMED = "token_malformed", "the token is not a JWT"
    TOKEN_SIGNATURE = "token_signature", "the token is not signed with our key"
    TOKEN_HEADER = "token_header", "the token's header is not the one that we issue"
    TOKEN_EXPIRED = "token_expired", "the token has expired, or has no end"
    TOKEN_AUDIENCE = "token_audience", "the token is for another service"
    TOKEN_SUBJECT = "token_subject", "the token is not for the ztunnel's account"
    TOKEN_NODE = "token_node", "the token names no node"

    # Every method
    OTHER_NODE = "other_node", "the caller claims to be another node than its token's"
    WIRE = "wire", "the message cannot be read"

    # Certificates
    BUSY = "busy", "too many certificate requests are waiting"
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

    # xDS streams
    STREAMS_MAX = "streams_max", "too many streams are open"
    SILENT = "silent", "the stream said nothing at first"
    TOO_MANY_NAMES = "too_many_names", "the client subscribes to too many names"

    # Capture reports
    BAD_REPORT = "bad_report", "the report has too many pods, or one with too long a uid"
    NOT_SAVED = "not_saved", "the report could not be written to disk"

    word: str
    meaning: str

    def __init__(self, word: str, meaning: str) -> None:
        self.word = word
        self.meaning = meaning

    def __str__(self) -> str:
        return self.word
