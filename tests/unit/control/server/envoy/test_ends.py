from __future__ import annotations

import json

from control.server.envoy import ends
from control.server.envoy.settings import DEFAULTS, ShapeSettings


def test_both_families_by_one_socket() -> None:
    made = ends.connect_terminate("cluster.local", DEFAULTS)
    assert made["address"]["socket_address"]["ipv4_compat"] is True
    made = ends.connect_terminate("cluster.local", ShapeSettings("127.0.0.1"))
    assert "ipv4_compat" not in made["address"]["socket_address"]


def test_certificates_come_from_the_process_beside_envoy() -> None:
    text = json.dumps([ends.connect_terminate("d", DEFAULTS), ends.tunnels_out("d")])
    assert text.count('"name": "ROOTCA"') == text.count('"name": "default"') == 2
    assert "private_key" not in text


def test_a_client_needs_a_certificate_and_both_sides_tls_1_3() -> None:
    (chain,) = ends.connect_terminate("d", DEFAULTS)["filter_chains"]
    assert chain["transport_socket"]["typed_config"]["require_client_certificate"] is True
    for socket in (chain["transport_socket"], ends.tunnels_out("d")["transport_socket"]):
        common = socket["typed_config"]["common_tls_context"]
        assert common["tls_params"]["tls_minimum_protocol_version"] == "TLSv1_3"


def test_without_a_word_of_the_endpoints_nobody_is_the_one() -> None:
    (chain,) = ends.connect_originate()["filter_chains"]
    (wanted,) = chain["filters"][0]["typed_config"]["on_new_connection"]
    assert "skip_if_empty" not in wanted  # the name wanted is then `-`
