"""No key and no token leaves in a dump, wherever it hides; what is public stays."""

from __future__ import annotations

import base64
import json

import pytest

from agent.cli.redact import REDACTED, redact
from tests.unit.agent.cli.mesh_example import PRIVATE_KEY, TOKEN, example

BASE64_KEY = base64.b64encode(PRIVATE_KEY.encode()).decode()


@pytest.mark.parametrize(
    "hidden",
    [
        PRIVATE_KEY,
        TOKEN,
        BASE64_KEY,
        BASE64_KEY.rstrip("="),
        f"authorization: Bearer {TOKEN}",
        PRIVATE_KEY[:60],
    ],
)
@pytest.mark.parametrize("shape", ["{}", "before {} after"])
def test_by_look(hidden: str, shape: str) -> None:
    value = {"a": [{"b": shape.format(hidden)}]}
    text = json.dumps(redact(value))
    assert REDACTED in text
    for piece in (hidden[30:50], "MHcCAQEE"):
        assert piece not in text


@pytest.mark.parametrize(
    "name", ["token", "node_token", "key_pem", "privateKey", "PASSWORD", "api-key"]
)
def test_by_name(name: str) -> None:
    assert redact({name: "abc"}) == {name: REDACTED}
    assert redact({name: ["abc"]}) == {name: [REDACTED]}


def test_what_is_public_stays() -> None:
    value = {
        "identity": "spiffe://a/ns/b/sa/c",
        "certChain": [
            {"pem": base64.b64encode(b"-----BEGIN CERTIFICATE-----\n" + b"x" * 60).decode()}
        ],
        "tokens_used": 3,
        "monkey": "banana",
        "empty": {"token": ""},
        "pid": None,
    }
    assert redact(value) == value


def test_the_example_mesh_with_secrets_put_in_everywhere() -> None:
    mesh = example().as_json()
    mesh["nodes"]["n1"]["ztunnel"]["certificates"][0]["key"] = PRIVATE_KEY
    mesh["errors"] = [f"refused {TOKEN}"]
    text = json.dumps(redact(mesh))
    for secret in (TOKEN, TOKEN.split(".")[2], "MHcCAQEE", "/run/token"):
        assert secret not in text
    assert "spiffe://cluster.local/ns/shop/sa/a" in text
