"""Responses with a difference: cut at their bound, and the same bytes for everyone."""

from __future__ import annotations

import gc
from collections.abc import Iterable

from control.kit.slices import PORTION, done
from control.server.xds.difference import ShelfDifference, difference_steps
from control.server.xds.resource import CachedResource, make_entry
from control.server.xds.response import KEPT_BYTES_MAX, DeltaResponse
from control.wire import discovery_pb2 as pb
from control.wire.delta import Word


def entries(count: int, size_bytes: int = 100) -> list[CachedResource]:
    return [make_entry("t", str(number), b"x" * size_bytes) for number in range(count)]


def difference(
    added: Iterable[CachedResource], removed: Iterable[str], response_bytes_max: int
) -> ShelfDifference:
    return done(difference_steps("t", 7, added, removed, response_bytes_max))


def test_parts_are_as_large_as_the_bound_and_hold_everything() -> None:
    all_of_them = entries(10)
    bound = 3 * len(all_of_them[0].framed)
    found = difference(all_of_them, ["gone"], bound)
    assert [len(part) for part in found.parts] == [3, 3, 3, 1]
    assert [each for part in found.parts for each in part] == all_of_them
    assert (len(found), found.size_bytes) == (11, sum(len(each.framed) for each in all_of_them))
    assert found.sizes == [sum(len(each.framed) for each in part) for part in found.parts]
    alone = difference(all_of_them, (), 1)
    assert [len(part) for part in alone.parts] == [1] * 10, "one that is too large goes alone"


def tell(size_bytes: int) -> list[DeltaResponse]:
    found = difference(entries(1, size_bytes), ["gone"], 10**9)
    return [
        found.tell(0, "n", Word.WHOLE, with_removed=True, is_own=is_own)
        for is_own in (False, False, True)
    ]


def test_everyone_is_told_the_same_bytes_but_who_has_a_difference_of_its_own() -> None:
    first, second, own = tell(100)
    assert first is second
    assert (first.nonce, own.nonce) == ("t-7.0", "n")
    message = pb.DeltaDiscoveryResponse.FromString(own.data)
    assert (message.nonce, message.type_url, message.system_version_info) == (
        "n",
        "t",
        "tulle/whole",
    )
    assert [each.name for each in message.resources] == ["0"]
    assert list(message.removed_resources) == ["gone"]
    assert (own.added, own.removed) == (1, 1)


def test_a_large_response_is_kept_while_it_is_sent() -> None:
    found = difference(entries(1, KEPT_BYTES_MAX), (), 10**9)
    first = found.tell(0, "n", Word.MORE, with_removed=True, is_own=False)
    assert found.tell(0, "n", Word.MORE, with_removed=True, is_own=False) is first
    number = id(first)
    del first
    gc.collect()
    assert number
    assert not found._sent


def test_it_is_worked_out_a_portion_a_step() -> None:
    steps = difference_steps("t", 7, entries(3 * PORTION, 1), (), 10**9)
    assert len(list(steps)) == 3
