"""Policies that a control plane makes, ours or istiod, of PeerAuthentications, and ours for pods
behind a waypoint: their names, and words for users instead."""

from __future__ import annotations

import re

PEER_AUTHENTICATION = "PeerAuthentication"
_STATIC_STRICT = "istio_converted_static_strict"
_PREFIX = "converted_peer_authentication_"
WAYPOINT = "Waypoint"  # in place of a kind
_BY_WAYPOINT = "only_by_waypoint_"
_BY_WAYPOINTS = "only_by_waypoints_"
_STRICT = re.compile(rf"(?:[a-z0-9-]+/)?{_STATIC_STRICT}\b")
_OF_ONE = re.compile(rf"([a-z0-9-]+)/{_PREFIX}([a-z0-9.-]+)")
_OF_WAYPOINT = re.compile(rf"[a-z0-9-]+/{_BY_WAYPOINT}([a-z0-9-]+)_([a-z0-9.-]+)")
_OF_WAYPOINTS = re.compile(rf"[a-z0-9-]+/{_BY_WAYPOINTS}[0-9a-f]+")


def made_of(name: str) -> tuple[str, str]:
    """Kind and name of that for which a policy was made; empty: it is what it says."""
    if peer := name_of(name):
        return PEER_AUTHENTICATION, peer
    if name.startswith(_BY_WAYPOINT):
        return WAYPOINT, f"(only by {name.removeprefix(_BY_WAYPOINT).replace('_', '/', 1)})"
    if name.startswith(_BY_WAYPOINTS):
        return WAYPOINT, f"(only by several, {name.removeprefix(_BY_WAYPOINTS)})"
    return "", ""


def name_of(name: str) -> str:
    """The PeerAuthentication of which a policy was made; empty: it is what it says."""
    if name == _STATIC_STRICT:
        return "(STRICT)"
    return name.removeprefix(_PREFIX) if name.startswith(_PREFIX) else ""


def words(text: str) -> str:
    """A sentence with such names in it."""
    told = _STRICT.sub(f"{PEER_AUTHENTICATION} (STRICT)", text)
    told = _OF_ONE.sub(rf"{PEER_AUTHENTICATION} \1/\2", told)
    told = _OF_WAYPOINT.sub(rf"{WAYPOINT} \1/\2 (only it may call this pod)", told)
    return _OF_WAYPOINTS.sub(f"{WAYPOINT} (only its waypoints may call this pod)", told)
