"""Policies that a control plane, ours or istiod, makes of PeerAuthentications: their names, and
words for users instead."""

from __future__ import annotations

import re

PEER_AUTHENTICATION = "PeerAuthentication"
_STATIC_STRICT = "istio_converted_static_strict"
_PREFIX = "converted_peer_authentication_"
_STRICT = re.compile(rf"(?:[a-z0-9-]+/)?{_STATIC_STRICT}\b")
_OF_ONE = re.compile(rf"([a-z0-9-]+)/{_PREFIX}([a-z0-9.-]+)")


def name_of(name: str) -> str:
    """The PeerAuthentication of which a policy was made; empty: it is what it says."""
    if name == _STATIC_STRICT:
        return "(STRICT)"
    return name.removeprefix(_PREFIX) if name.startswith(_PREFIX) else ""


def words(text: str) -> str:
    """A sentence with such names in it."""
    told = _STRICT.sub(f"{PEER_AUTHENTICATION} (STRICT)", text)
    return _OF_ONE.sub(rf"{PEER_AUTHENTICATION} \1/\2", told)
