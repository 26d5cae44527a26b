from __future__ import annotations

import subprocess
import sys

import pytest

from control.server.envoy.descriptors import decode, encode
from control.wire.types import CLUSTER_TYPE, KINDS_OF_ENVOY, SECRET_TYPE


@pytest.mark.parametrize("type_url", [*KINDS_OF_ENVOY, SECRET_TYPE])
def test_each_type_that_we_send_is_known(type_url: str) -> None:
    assert decode(type_url, encode(type_url, {})) == {}


def test_the_same_value_gives_the_same_bytes_in_any_order() -> None:
    metadata = {"b": {"x": "1", "a": "2"}, "a": {"y": "3"}}
    turned = {"a": {"y": "3"}, "b": {"a": "2", "x": "1"}}
    one, other = (
        encode(CLUSTER_TYPE, {"name": "c", "metadata": {"filter_metadata": each}})
        for each in (metadata, turned)
    )
    assert one == other
    assert decode(CLUSTER_TYPE, one)["metadata"]["filter_metadata"] == metadata


def test_nothing_is_read_before_it_is_needed() -> None:
    code = (
        "import sys; from control.server.envoy import descriptors, resources;"
        "assert not descriptors._pool.cache_info().currsize"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
