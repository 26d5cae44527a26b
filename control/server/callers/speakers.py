"""Service accounts, and the waypoints that some of them are. Pure.

A waypoint's processes run as the account of its Gateway's name, so an account is a waypoint's for
as long as there is such a Gateway. It speaks for that waypoint alone, not for the node it runs on.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TypeAlias

from control.model.route import WaypointKey

IsWaypoint: TypeAlias = Callable[[WaypointKey], bool]

# Names as an API server takes them.
_NAME = r"[a-z0-9](?:[-a-z0-9.]{0,251}[a-z0-9])?"
_ACCOUNT = re.compile(rf"([a-z0-9](?:[-a-z0-9]{{0,61}}[a-z0-9])?)/({_NAME})")
_PREFIX = "system:serviceaccount:"


def no_waypoint(_: WaypointKey) -> bool:
    return False


def subject(namespace: str, name: str) -> str:
    return f"{_PREFIX}{namespace}:{name}"


def account_from(text: str) -> WaypointKey | None:
    """`NAMESPACE/NAME` → the account; None: no account can be called that."""
    found = _ACCOUNT.fullmatch(text)
    return None if found is None else WaypointKey(found[1], found[2])


def account_of(text: str) -> WaypointKey | None:
    """The account that a subject names; None: it names none."""
    if not text.startswith(_PREFIX):
        return None
    namespace, colon, name = text.removeprefix(_PREFIX).partition(":")
    return account_from(f"{namespace}/{name}") if colon else None


def waypoint_of(text: str, is_waypoint: IsWaypoint) -> WaypointKey | None:
    """The waypoint that a subject speaks for now; None: it is no waypoint's."""
    account = account_of(text)
    return account if account is not None and is_waypoint(account) else None
