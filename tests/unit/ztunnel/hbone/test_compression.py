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


NAMES = st.from_regex(r"\A[a-z][a-z0-9-]{0,20}\Z").filter(
    lambda name: name not in ("connection", "upgrade", "te")
)
VALUES = st.from_regex(r"\A[!-~\xa1-\xff]([ -~]{0,60}[!-~])?\Z")


@settings(max_examples=20, deadline=None)
@given(st.lists(st.lists(st.tuples(NAMES, VALUES), max_size=5), max_size=4))
def test_what_one_side_encodes_the_other_decodes(lists: list[list[tuple[str, str]]]) -> None:
    near, far = codec(), codec()
    near.limit_encoder(0)
    near.limit_encoder(100)
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


# What peers send: references, literals of each kind, size updates; and what nobody should send.
PIECES = st.one_of(
    st.integers(1, 70).map(lambda index: bytes([0x80 | index])),
    st.builds(
        lambda kind, name, value: kind + bytes([len(name)]) + name + bytes([len(value)]) + value,
        st.sampled_from([b"\x00", b"\x10", b"\x40"]),
        st.sampled_from([b"forwarded", b"x", b""]),
        st.binary(max_size=130).filter(lambda value: len(value) != 127),
    ),
    st.sampled_from([b"\x20", b"\x3f\x10", b"\x3f\xe1\x1f", b"\xff\x00", b"\x04\x01a"]),
    st.binary(max_size=4),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.lists(PIECES, max_size=5).map(b"".join), min_size=2, max_size=12))
def test_remembered_blocks_mean_what_the_library_says(blocks: list[bytes]) -> None:
    """Every block twice, because only what comes again is remembered."""
    far = codec()
    library = Decoder(max_header_list_size=64 * 1024)
    for block in [each for twice in blocks for each in (twice, twice)]:
        try:
            expected: RawHeaders | None = [tuple(f) for f in library.decode(block, raw=True)]
        except HPACKError:
            expected = None
        try:
            found = far.decode(block).raw()
        except ConnectionBroken:
            return  # the connection is over; three size updates break it though hpack takes them
        assert found == expected


def test_the_limit_holds_for_a_list_that_is_partly_remembered() -> None:
    far = HeaderCodec(200, 4096)
    short, long = literal(b"a", b"x" * 100), literal(b"a", b"x" * 126)
    assert len(far.decode(b"\x88" + short)) == 2
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
