"""Explanations of the stable reasons for which there is no direct path."""

from __future__ import annotations

from typing import Final

MEANINGS: Final = {
    "no_direct": "switched off",
    "no_ztunnel": "no ztunnel asked for it",
    "no_hello": "its ztunnel does not serve pods yet",
    "not_newest": "the newest ztunnel did not ask for it",
    "flows_full": "too many connections",
    "lease_over": "the agent was held up",
}
