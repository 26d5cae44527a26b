"""Account of the names that one client makes the control plane keep."""

from __future__ import annotations

from control.kit.errors import WireError
from control.server.callers.refusals import CallRefusal

# Longer than any name there is: a host name of 253 letters, a namespace and a kind.
NAME_CHARS_MAX = 1024
NAME_COST_BYTES = 200  # a name that is kept takes, beside its letters


class BadRequest(WireError):
    """A request that asks for more than one stream may have."""

    def __init__(self, why: CallRefusal, detail: str) -> None:
        super().__init__(detail)
        self.why = why


class KeptNames:
    """`size_bytes`: memory of names that are this client's own: those asked for, and those that
    nobody has."""

    def __init__(self) -> None:
        self.size_bytes = 0

    def keep(self, name: str) -> None:
        if len(name) > NAME_CHARS_MAX:
            raise BadRequest(CallRefusal.BAD_NAME, "a resource's name is too long")
        self.size_bytes += NAME_COST_BYTES + len(name)

    def release(self, name: str) -> None:
        self.size_bytes -= NAME_COST_BYTES + len(name)
