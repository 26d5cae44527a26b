"""Node tokens that are no longer good, from a file that `tulle-control token --revoke` writes.

The control plane follows the file: a call with such a token is refused from the next one on, and
those under way end within a second. A token is named by its fingerprint, since the file must not
hold what could be used; a node by its name and the time until which its tokens are void. What
cannot be read takes nothing back: the last revocations stay, with whatever else is readable. Nor
does a clock that is set: what it says decides neither which tokens of a node are void nor when one
of them may be forgotten.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import ClassVar, Final

from control.kit import lock
from control.kit.clock import Clock
from control.kit.errors import ConfigError
from control.kit.files import write_atomic
from control.kit.log import event

log = logging.getLogger("server")

NAME: Final = "revoked"  # in the state folder
REVOKED_BYTES_MAX: Final = 4 << 20  # 100 bytes a line
_HEAD: Final = "# Node tokens that are void. Written by: tulle-control token --revoke\n"
# A token that ended is kept, as long as there is room: the clock by which it did may be set back.
KEPT_S: Final = 31 * 86400
_TIME_MAX: Final = 10**12 - 1
_FINGERPRINT = re.compile(r"[0-9a-f]{64}")


class BadRevocations(ConfigError):
    reason: ClassVar[str] = "bad_revocations"


def fingerprint(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


@dataclass(frozen=True, slots=True)
class Revocations:
    """`tokens`: fingerprint → when it would have expired. `nodes`: name → its tokens that were
    issued until then are void. In seconds of Unix time."""

    tokens: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    nodes: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))

    def covers(self, node: str, issued_s: int, mark: str) -> bool:
        """True for a token with this fingerprint, of this node."""
        return mark in self.tokens or issued_s <= self.nodes.get(node, -1)

    def united(self, other: Revocations) -> Revocations:
        """All that either of them revokes."""
        nodes = dict(self.nodes)
        for name, until_s in other.nodes.items():
            nodes[name] = max(until_s, nodes.get(name, 0))
        return Revocations({**self.tokens, **other.tokens}, nodes)

    def after(self, ended_s: float) -> Revocations:
        """Without tokens that had ended by themselves by then."""
        left = {mark: end_s for mark, end_s in self.tokens.items() if end_s > ended_s}
        return Revocations(left, self.nodes)

    def text(self) -> str:
        """The file's text."""
        nodes = (f"node {name} {until_s}\n" for name, until_s in sorted(self.nodes.items()))
        tokens = (f"token {mark} {end_s}\n" for mark, end_s in sorted(self.tokens.items()))
        return "".join([_HEAD, *nodes, *tokens])


def parse(lines: Iterable[str]) -> tuple[Revocations, list[int]]:
    """The revocations, and the numbers of the lines that cannot be understood."""
    tokens: dict[str, int] = {}
    nodes: dict[str, int] = {}
    broken: list[int] = []
    for number, line in enumerate(lines, 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        match words:
            case ["token", mark, end] if _FINGERPRINT.fullmatch(mark) and _is_time(end):
                tokens[mark] = int(end)
            case ["node", name, until] if _is_time(until):
                nodes[name] = max(int(until), nodes.get(name, 0))
            case _:
                broken.append(number)
    return Revocations(tokens, nodes), broken


def _is_time(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= len(str(_TIME_MAX))


def load(path: Path) -> Revocations:
    """Everything that the file says; nothing if there is none. Raises BadRevocations, OSError."""
    found, problem = _read(path)
    if problem:
        raise BadRevocations(problem)
    return found


def _read(path: Path) -> tuple[Revocations, str]:
    """The revocations that can be read, and what is wrong with the rest."""
    try:
        with path.open("rb") as file:
            data = file.read(REVOKED_BYTES_MAX + 1)
    except FileNotFoundError:
        return Revocations(), ""
    lines = data[:REVOKED_BYTES_MAX].decode(errors="replace").split("\n")
    if len(data) > REVOKED_BYTES_MAX:
        lines.pop()  # it may be half a line
        return parse(lines)[0], f"{path}: more than {REVOKED_BYTES_MAX} bytes"
    found, broken = parse(lines)
    return found, f"{path}:{broken[0]}: not a revocation" if broken else ""


def add(path: Path, new: Revocations, clock: Clock) -> None:
    """Write these down too. Raises BadRevocations, OSError, ConfigError if somebody else does."""
    with lock.held(path.with_name(f".{path.name}.lock"), "another revocation"):
        known = load(path).united(new)
        data = known.text().encode()
        if len(data) > REVOKED_BYTES_MAX:
            data = known.after(clock.now().timestamp() - KEPT_S).text().encode()
        if len(data) > REVOKED_BYTES_MAX:
            raise BadRevocations(
                f"{path}: full; a new token key (remove token-key, restart, issue tokens) voids all"
            )
        write_atomic(path, data, 0o600)


def one_token(token: str, expires_s: int) -> Revocations:
    return Revocations({fingerprint(token): min(expires_s, _TIME_MAX)})


def whole_node(node: str, clock: Clock, issued_s: int) -> Revocations:
    """The word that takes back every token of the node. `issued_s`: the last of them was issued
    then, by a clock that may have been set since. Raises BadRevocations."""
    if node.split() != [node] or not node.isprintable():
        raise BadRevocations(f"{node!r}: not the name of a node")
    now_s = max(0, int(clock.now().timestamp()))
    return Revocations(nodes={node: min(max(now_s, issued_s), _TIME_MAX)})


class RevocationFile:
    """The revocations of now. Looked at for each call: a `stat` if nothing has changed."""

    def __init__(self, path: Path) -> None:
        """Raises BadRevocations: who starts with less than all of them lets somebody in."""
        self._path = path
        self._problem = ""  # told
        self._seen = self._stamp()
        self._now = load(path)

    def now(self) -> Revocations:
        try:
            stamp = self._stamp()
            if stamp == self._seen:
                return self._now
            found, problem = _read(self._path)
        except OSError as exc:
            self._tell(str(exc))
            return self._now
        self._seen = stamp
        self._tell(problem)
        self._now = found.united(self._now) if problem else found
        counts = {"tokens": len(self._now.tokens), "nodes": len(self._now.nodes)}
        event(log, logging.INFO, "revocations.read", **counts)
        return self._now

    def _tell(self, problem: str) -> None:
        if problem and problem != self._problem:
            event(log, logging.ERROR, "revocations.unreadable", error=problem)
        self._problem = problem

    def _stamp(self) -> tuple[int, ...]:
        try:
            found = os.stat(self._path)
        except FileNotFoundError:
            return ()
        return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns
