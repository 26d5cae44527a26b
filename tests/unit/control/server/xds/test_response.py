"""A response is decided at once; its bytes are put together in steps, by whoever comes."""

from __future__ import annotations

from control.kit.slices import PORTION
from control.server.xds.resource import make_entry
from control.server.xds.response import DeltaResponse, encode, encode_question, fitted
from control.wire import discovery_pb2 as pb
from control.wire.delta import Word
from control.wire.sums import question_from_text

PIECES = [make_entry("t", f"name-{number}", b"x" * 50).framed for number in range(3 * PORTION)]


def large() -> DeltaResponse:
    added = len(PIECES), sum(map(len, PIECES))
    return DeltaResponse("t", "n", "tulle/whole", iter(PIECES), ("gone",), added)


def test_it_is_the_message_that_protobuf_would_write() -> None:
    response = large()
    message = pb.DeltaDiscoveryResponse.FromString(response.data)
    assert [each.name for each in message.resources] == [
        f"name-{number}" for number in range(3 * PORTION)
    ]
    assert list(message.removed_resources) == ["gone"]
    assert (message.type_url, message.nonce) == ("t", "n")
    assert (response.added, response.removed) == (len(PIECES), 1)
    assert response.size_bytes == len(response.data)
    assert response.data is response.data, "nothing is copied"


def test_it_is_put_together_once_by_several_in_turn() -> None:
    response = large()
    steps = [response.steps() for _ in range(3)]
    taken = 0
    while steps:
        steps = [each for each in steps if next(each, steps) is not steps]
        taken += len(steps)
    assert taken <= 3 * PORTION // PORTION + 1 + 2, "a portion each, and a last look"
    assert response.data == large().data
    assert list(response.steps()) == []


def test_no_step_is_more_than_a_portion() -> None:
    handed: list[int] = []

    def pieces() -> object:
        for number, each in enumerate(PIECES):
            handed.append(number)
            yield each

    response = DeltaResponse("t", "n", "", pieces(), (), (0, 0))  # type: ignore[arg-type]
    before = 0
    for _ in response.steps():
        assert len(handed) - before <= PORTION
        before = len(handed)
    assert len(handed) == len(PIECES)


def test_a_small_one_and_a_question_are_as_they_were() -> None:
    small = encode("t", "n", Word.MORE, PIECES[:2], ["a", "b"])
    assert (small.added, small.removed, small.size_bytes) == (2, 2, len(small.data))
    asked = encode_question("t", {1, 5}, "q", Word.MORE)
    message = pb.DeltaDiscoveryResponse.FromString(asked.data)
    assert question_from_text(message.system_version_info) == {1, 5}


def test_as_much_as_fits_and_one_at_least() -> None:
    pieces = [b"aaa", b"bb", b"c", b"dddd"]
    assert fitted(pieces, 5) == [b"aaa", b"bb"]
    assert fitted(pieces, 100) == pieces
    assert fitted(pieces, 1) == [b"aaa"], "or it would never be told"
    assert fitted([], 1) == []
