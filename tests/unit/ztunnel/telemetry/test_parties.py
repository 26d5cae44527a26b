"""Words and values of one connection."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control.model.address import Endpoint, parse_endpoint
from ztunnel.refusals import Flag
from ztunnel.telemetry.parties import Memo, Reporter, Series, endpoint_text

ADDRESSES = st.binary(min_size=4, max_size=4) | st.binary(min_size=16, max_size=16)


@given(ADDRESSES, st.integers(0, 65535))
def test_an_endpoint_reads_as_everywhere_else(address: bytes, port: int) -> None:
    endpoint = Endpoint(address, port)  # type: ignore[arg-type]  # packed
    assert endpoint_text(endpoint) == str(endpoint)


@pytest.mark.parametrize("text", ["10.0.0.1:80", "[fd00::1]:80", "[::]:1"])
def test_an_endpoint_comes_back_from_its_text(text: str) -> None:
    assert endpoint_text(parse_endpoint(text)) == text


def test_the_words_are_istios() -> None:
    """Dashboards ask for them by name."""
    assert {flag.value for flag in Flag} == {
        "-",
        "DENY",
        "CONNECT",
        "TLS_FAILURE",
        "H2_HANDSHAKE_FAILURE",
        "NETWORK_POLICY",
        "IDENTITY_ERROR",
    }
    assert {each.value for each in Reporter} == {"source", "destination"}


def test_what_is_remembered_begins_empty_and_is_nobody_elses() -> None:
    one, other = Series({}), Series({})
    one.closed[Flag.DENY] = 1
    assert other.closed == {}
    memo = Memo()
    assert (memo.series, memo.log_text) == (None, "")
