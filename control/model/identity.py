"""Identities: SPIFFE ids of the one form that Istio's ambient mode knows. Values only."""

from __future__ import annotations

import re
from dataclasses import dataclass

# SPIFFE-ID 1.0, section 2: the trust domain has these letters only, at most 255 of them.
_TRUST_DOMAIN = re.compile(r"[a-z0-9._-]{1,255}")
# Kubernetes names are DNS-1123 subdomains (at most 253); the path segment of SPIFFE allows more
# letters, but an identity that Kubernetes could not have issued is not an identity here.
_SEGMENT = re.compile(r"[a-zA-Z0-9](?:[a-zA-Z0-9._-]{0,251}[a-zA-Z0-9])?")
SPIFFE_URI_BYTES_MAX = 2048  # SPIFFE-ID 1.0, section 2.3


@dataclass(frozen=True, slots=True, order=True)
class SpiffeId:
    """`spiffe://<trust domain>/ns/<namespace>/sa/<service account>`, and nothing else."""

    trust_domain: str
    namespace: str
    service_account: str

    def __str__(self) -> str:
        return f"spiffe://{self.principal}"

    @property
    def principal(self) -> str:
        """The id without its scheme, as the `principals` of a policy name it."""
        return f"{self.trust_domain}/ns/{self.namespace}/sa/{self.service_account}"


def parse_spiffe_id(uri: str) -> SpiffeId:
    """Exactly the form above, compared letter by letter; ValueError for anything else.

    No case folding, no percent decoding, no query: two spellings of one name would be two ways
    around a policy (SPIFFE-ID 1.0, section 2.4).
    """
    if len(uri) > SPIFFE_URI_BYTES_MAX:
        raise ValueError("a SPIFFE id has at most 2048 bytes")
    parts = uri.split("/")
    if len(parts) != 7 or parts[0] != "spiffe:" or parts[1] or parts[3] != "ns" or parts[5] != "sa":
        raise ValueError(f"not spiffe://<trust domain>/ns/<namespace>/sa/<account>: {uri!r}")
    domain, namespace, account = parts[2], parts[4], parts[6]
    if not _TRUST_DOMAIN.fullmatch(domain):
        raise ValueError(f"not a trust domain: {domain!r}")
    if not _SEGMENT.fullmatch(namespace) or not _SEGMENT.fullmatch(account):
        raise ValueError(f"not a Kubernetes name in {uri!r}")
    return SpiffeId(domain, namespace, account)
