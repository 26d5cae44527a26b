"""Sums of what a client holds: a few kilobytes in place of the names and versions of a mesh.

Names are spread over buckets, and a bucket's sum is a hash of its entries in order. Two sides with
the same sums hold the same. Where they differ, the server asks for the entries of those buckets.

They travel in fields that others pass over: sums in the metadata of the client's node, as text; the
question in `system_version_info` of a response without resources. Whoever takes sums says so in
each response, as `control_plane.identifier`. A server that does not ask has not read the sums, and
would never tell what is gone: its client comes back with a list.
"""

from __future__ import annotations

import hashlib
from base64 import b64decode, b64encode
from collections.abc import Collection, Iterable, Mapping
from zlib import crc32

from control.kit.errors import WireError

SUMS_KEY = "TULLE_SUMS"  # in the node's metadata
TAKES_SUMS = "tulle-control/sums"  # identifier of a control plane that does
ASKS = "tulle/list "  # a question; the buckets follow

# 50 entries each where a list is dear: one that differs costs 4 KB to name, all sums cost 22 KB.
BUCKETS = 1024
SUM_BYTES = 16  # nobody makes two sets of entries with one sum
# A list of fewer is not worth a question: it is three times as long as the sums.
WORTH_ENTRIES = 1024

ALL_BUCKETS = frozenset(range(BUCKETS))
_MAP_BYTES = BUCKETS // 8


def bucket_of(name: str) -> int:
    return crc32(name.encode()) % BUCKETS


def sum_of(entries: Iterable[tuple[str, str]]) -> bytes:
    """Sum of one bucket's names and versions, in any order."""
    lines = sorted(f"{len(version)},{len(name)},{version}{name}" for name, version in entries)
    return hashlib.blake2b("".join(lines).encode(), digest_size=SUM_BYTES).digest()


NO_ENTRIES = sum_of(())


def sums_of(versions: Mapping[str, str]) -> list[bytes]:
    """Sum of each bucket."""
    spread: dict[int, list[tuple[str, str]]] = {}
    for entry in versions.items():
        spread.setdefault(bucket_of(entry[0]), []).append(entry)
    return [sum_of(spread[each]) if each in spread else NO_ENTRIES for each in range(BUCKETS)]


def sums_to_text(sums: Iterable[bytes]) -> str:
    return b64encode(b"".join(sums)).decode()


def sums_from_text(text: str) -> list[bytes]:
    """Raises WireError."""
    try:
        data = b64decode(text, validate=True)
    except ValueError as exc:
        raise WireError("sums are not base64") from exc
    if len(data) != BUCKETS * SUM_BYTES:
        raise WireError(f"sums of {len(data)} bytes")
    return [data[at : at + SUM_BYTES] for at in range(0, len(data), SUM_BYTES)]


def question_to_text(buckets: Collection[int]) -> str:
    number = sum(1 << each for each in buckets)
    return ASKS + number.to_bytes(_MAP_BYTES, "little").hex()


def question_from_text(text: str) -> frozenset[int] | None:
    """The buckets that a response asks for; None if it asks nothing. Raises WireError."""
    if not text.startswith(ASKS):
        return None
    try:
        data = bytes.fromhex(text[len(ASKS) :])
    except ValueError as exc:
        raise WireError("a question that is no list of buckets") from exc
    if len(data) != _MAP_BYTES:
        raise WireError("a question about another number of buckets")
    number = int.from_bytes(data, "little")
    return frozenset(each for each in range(BUCKETS) if number >> each & 1)


def entries_in(versions: Mapping[str, str], buckets: Collection[int]) -> dict[str, str]:
    """Names and versions that are in these buckets."""
    if not buckets:
        return {}
    if len(buckets) == BUCKETS:
        return dict(versions)
    return {name: each for name, each in versions.items() if bucket_of(name) in buckets}
