"""Metrics pages for Prometheus: classic text or OpenMetrics, by the Accept header."""

from __future__ import annotations

import gzip

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

GZIP_BYTES_MIN = 1400  # below one packet, compression costs more than it saves


def render(registry: CollectorRegistry, headers: dict[str, str]) -> tuple[dict[str, str], bytes]:
    """The page and its headers. `headers` are the request's, names in lower case."""
    encoder, content_type = choose_encoder(headers.get("accept", ""))
    body = encoder(registry)
    answer = {"content-type": content_type, "vary": "accept, accept-encoding"}
    if len(body) >= GZIP_BYTES_MIN and "gzip" in headers.get("accept-encoding", ""):
        answer["content-encoding"] = "gzip"
        body = gzip.compress(body, compresslevel=3)
    return answer, body
