import random

import pytest
from hpack import Decoder, Encoder, HPACKError
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ztunnel.hbone.compression import REMEMBERED_MAX, HeaderCodec
from ztunnel.hbone.errors import ConnectionBroken, ErrorCode
from ztunnel.hbone.headers import MalformedError, RawHeaders, check_trailers

AGENT = ("baggage", "a=b")
ID = ("traceparent", "00-1-1-00")


def literal(name: bytes, value: bytes) -> bytes:
    """As a header that is sent once; a request with nothing in the table is all literals else."""
    near = codec()
    near.encode_request("a", (), ())
    once = ((name.decode("latin-1"), value.decode("latin-1")),)
    return near.encode_request("a", (), once)[2:]


def codec() -> HeaderCodec:
    return HeaderCodec(64 * 1024, 4096)


FIRST = "abcdefghijklmnopqrstuvwxyz"
NAME_SIGNS = FIRST + "0123456789-"
EDGES_OF_VALUE = "".join(map(chr, (*range(0x21, 0x7F), *range(0xA1, 0x100))))
VALUE_SIGNS = EDGES_OF_VALUE + " "


def any_field(pick: random.Random) -> tuple[str, str]:
    """A name and a value that may be sent, short and long ones; a value never ends in a space."""
    name = pick.choice(FIRST) + "".join(pick.choices(NAME_SIGNS, k=pick.randrange(21)))
    size = pick.choice((0, 0, 1, 5, 60))
    value = pick.choice(EDGES_OF_VALUE) + "".join(pick.choices(VALUE_SIGNS, k=size))
    value += pick.choice(EDGES_OF_VALUE) if size else ""
    return ("x-" + name if name in ("connection", "upgrade", "te") else name), value


@settings(max_examples=40, deadline=None)
@given(st.randoms(use_true_random=True))
def test_what_one_side_encodes_the_other_decodes(pick: random.Random) -> None:
    near, far = codec(), codec()
    near.limit_encoder(0)
    near.limit_encoder(100)
    lists = [[any_field(pick) for _ in range(pick.randrange(6))] for _ in range(pick.randrange(5))]
    for headers in lists:
        for fields, once in ((headers, ()), (headers[:2], headers[2:])) * 2:
            block = near.encode_request("[::1]:80", tuple(fields), tuple(once))
            request = far.decode(block).request()
            assert (request.method, request.authority) == ("CONNECT", "[::1]:80")
            assert request.headers == [*fields, *once]
        for status in (503, 503, 200, 200):
            response = far.decode(near.encode_response(status, tuple(headers))).response()
            assert (response.status, response.headers) == (status, headers)
        assert far.decode(near.encode_response(200, ())).response().status == 200


def test_ids_of_single_requests_do_not_fill_the_table() -> None:
    near = codec()
    first = near.encode_request("web:80", (AGENT,), (ID,))
    for number in range(500):
        near.encode_request("web:80", (), (("traceparent", f"00-{number:032}-1-00"),))
    assert len(near.encode_request("web:80", (AGENT,), ())) == 3 < len(first)


def test_a_block_is_not_repeated_after_the_table_has_changed() -> None:
    near, far = codec(), codec()
    for number in range(3 * REMEMBERED_MAX):  # more than are remembered, more than the table holds
        for authority in ("web:80", f"web-{number}:80", "web:80"):
            block = near.encode_request(authority, (AGENT,), (ID,))
            request = far.decode(block).request()
            assert (request.authority, request.headers) == (authority, [AGENT, ID])


def test_the_first_answer_after_a_table_change_announces_it() -> None:
    near = codec()
    assert [near.encode_response(200, ()) for _ in range(2)] == [b"\x88"] * 2
    near.limit_encoder(0)
    near.limit_encoder(0)
    assert near.encode_response(200, ()) == b"\x20\x88"
    near.limit_encoder(0)
    assert [near.encode_response(200, ()) for _ in range(2)] == [b"\x88"] * 2


@given(st.binary(max_size=400), st.binary(max_size=400))
@example(b"n" * 126, b"v" * 127)
@example(b"n" * 127, b"v" * 254)
@example(b"n", b"v" * 20_000)
def test_literals_are_what_the_library_reads(name: bytes, value: bytes) -> None:
    assert [tuple(each) for each in Decoder().decode(literal(name, value), raw=True)] == [
        (name, value)
    ]


def test_a_header_list_beyond_the_limit_breaks_the_connection() -> None:
    block = Encoder().encode([(b"a", b"x" * 500), *[(b"a", b"x" * 500)] * 200])
    assert len(block) < 1_000, "a bomb: small on the wire"
    with pytest.raises(ConnectionBroken) as broken:
        codec().decode(block)
    assert broken.value.code is ErrorCode.ENHANCE_YOUR_CALM


def test_a_larger_table_than_ours_breaks_the_connection() -> None:
    with pytest.raises(ConnectionBroken) as broken:
        codec().decode(b"\x3f\xe2\x1f")  # 4097
    assert broken.value.code is ErrorCode.COMPRESSION_ERROR


def test_a_smaller_table_of_ours_binds_after_the_acknowledgement() -> None:
    far = HeaderCodec(1024, 64)
    far.decode(b"\x88")
    far.settings_acknowledged()
    with pytest.raises(ConnectionBroken):
        far.decode(b"\x88")  # the size update is missing


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=60))
def test_any_block_decodes_or_breaks_the_connection(block: bytes) -> None:
    try:
        decoded = codec().decode(block)
    except ConnectionBroken:
        return
    for parse in (decoded.request, decoded.response, lambda: check_trailers(decoded.raw())):
        try:
            parse()
        except MalformedError:
            pass


def any_piece(pick: random.Random) -> bytes:
    """Blocks that peers send (references, literals of each kind, size updates), and broken ones."""
    match pick.randrange(8):
        case 0 | 1 | 2:
            return bytes([0x80 | pick.randint(1, 70)])
        case 3 | 4 | 5:
            kind, name = pick.choice((b"\x00", b"\x10", b"\x40")), pick.choice(LITERALS)
            value = pick.randbytes(pick.choice((0, 1, 2, 20, 126, 130)))
            return kind + bytes([len(name)]) + name + bytes([len(value)]) + value
        case 6:
            return pick.choice((b"\x20", b"\x3f\x10", b"\x3f\xe1\x1f", b"\xff\x00", b"\x04\x01a"))
        case _:
            return pick.randbytes(pick.randrange(5))


LITERALS = (b"forwarded", b"x", b"")


@settings(max_examples=300, deadline=None)
@given(st.randoms(use_true_random=True))
def test_remembered_blocks_mean_what_the_library_says(pick: random.Random) -> None:
    """Every block twice, because only what comes again is remembered."""
    far = codec()
    library = Decoder(max_header_list_size=64 * 1024)
    sent = []
    for _ in range(pick.randint(2, 12)):
        block = b"".join(any_piece(pick) for _ in range(pick.randrange(6)))
        for _ in range(2):
            sent.append(block)
            try:
                expected: RawHeaders | None = [tuple(f) for f in library.decode(block, raw=True)]
            except HPACKError:
                expected = None
            try:
                found = far.decode(block).raw()
            except ConnectionBroken:
                return  # over; three size updates break it though hpack takes them
            assert found == expected, sent


def test_the_limit_holds_for_a_list_that_is_partly_remembered() -> None:
    far = HeaderCodec(200, 4096)
    short, long = literal(b"a", b"x" * 100), literal(b"a", b"x" * 126)
    assert far.decode(b"\x88" + short).fields == 2
    with pytest.raises(ConnectionBroken) as broken:
        far.decode(b"\x88" + long)
    assert broken.value.code is ErrorCode.ENHANCE_YOUR_CALM


def test_a_request_may_be_partly_remembered() -> None:
    far = codec()
    for port in (b"80", b"81"):
        fields = literal(b":authority", b"web:" + port) + literal(b"x-y", b"z")
        method = literal(b":method", b"CONNECT")
        request = far.decode(method + fields).request()
        assert (request.authority, request.headers) == ("web:" + port.decode(), [("x-y", "z")])
    for _ in range(2):  # `:method GET` is a reference to the static table
        with pytest.raises(MalformedError):
            far.decode(b"\x82" + literal(b":authority", b"web:80")).request()
        with pytest.raises(MalformedError):
            far.decode(b"\x88" + literal(b"connection", b"close")).response()
