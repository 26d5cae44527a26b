"""Policies whose selector selects no pod: in force, for nobody. Pure."""

from __future__ import annotations

from dataclasses import replace

from control.server.compile.policies import PolicyStatus
from control.server.sources.objects import Labels

LABELS_SHOWN_MAX = 8


def unselected(status: PolicyStatus, selector: Labels, everywhere: bool) -> PolicyStatus:
    """The status, with a note that nobody is selected."""
    where = "the mesh" if everywhere else f"namespace {status.namespace}"
    note = f"its selector ({_text(selector)}) selects no pod of {where}"
    reason = "Unmatched" if status.reason == "Accepted" else status.reason
    return replace(status, notes=(*status.notes, note), reason=reason)


def _text(selector: Labels) -> str:
    shown = [f"{name}={value}" for name, value in sorted(selector.items())]
    more = ["…"] if len(shown) > LABELS_SHOWN_MAX else []
    return ", ".join(shown[:LABELS_SHOWN_MAX] + more)
