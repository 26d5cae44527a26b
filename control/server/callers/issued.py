"""When a node got its last token here, beside the key: a revocation of the node goes by that too.

A revocation says until when a node's tokens are void. A clock that was set back between the two
would have it say less than the node has; so it says at least what this file knows.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec

from control.kit import lock
from control.kit.errors import ConfigError
from control.kit.files import write_atomic
from control.server.callers import outage

NAME: Final = "issued"  # in the state folder
NODES_MAX: Final = 8192  # as many as a mesh may have; 270 bytes each
BYTES_MAX: Final = 4 << 20
TURN_S: Final = 5.0  # tokens for all nodes may be asked for at once
_LOOK_S: Final = 0.02


class IssuedTimes(msgspec.Struct):
    """`nodes`: Unix time in whole seconds, the latest by name. `others`: no node that is not among
    them got one later."""

    nodes: dict[str, int] = msgspec.field(default_factory=dict)
    others: int = 0

    def last_s(self, node: str) -> int:
        return self.nodes.get(node, self.others)

    def note(self, node: str, issued_s: int) -> None:
        self.nodes[node] = max(issued_s, self.nodes.pop(node, 0))
        if len(self.nodes) > NODES_MAX:
            self.others = max(self.others, self.nodes.pop(next(iter(self.nodes))))


def last_s(state: Path, node: str) -> int:
    """When the newest token of the node was issued of which this state folder knows: our own, or a
    pod's on that node that called. Raises ConfigError, OSError."""
    seen_s = outage.newest_issued_s(state / outage.NAME, node)
    return max(load(state / NAME).last_s(node), seen_s)


def load(path: Path) -> IssuedTimes:
    """Raises ConfigError, OSError: nobody knows what a revocation has to cover."""
    try:
        with path.open("rb") as file:
            data = file.read(BYTES_MAX)
        return msgspec.json.decode(data, type=IssuedTimes)
    except FileNotFoundError:
        return IssuedTimes()
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise ConfigError(f"{path}: not the times of node tokens: {exc}") from exc


def note(path: Path, node: str, issued_s: int) -> None:
    """Write it down before the token is given out. Raises ConfigError, OSError."""
    with _turn(path.with_name(f".{path.name}.lock")):
        known = load(path)
        known.note(node, issued_s)
        write_atomic(path, msgspec.json.encode(known), 0o600)


@contextmanager
def _turn(path: Path) -> Iterator[None]:
    until_s = time.monotonic() + TURN_S
    while True:
        try:
            with lock.held(path, "another token"):
                yield
                return
        except lock.AlreadyServed:
            if time.monotonic() > until_s:
                raise
        time.sleep(_LOOK_S)
