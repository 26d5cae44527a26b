import pytest
from hpack import Encoder
from hypothesis import given, settings
from hypothesis import strategies as st

from ztunnel.hbone.errors import ConnectionBroken, ErrorCode
from ztunnel.hbone.headers import (
    EXTENDED_CONNECT,
    HeaderCodec,
    MalformedError,
    RawHeaders,
    check_trailers,
    parse_request,
    parse_response,
)

CONNECT: RawHeaders = [(b":method", b"CONNECT"), (b":authority", b"10.0.0.1:80")]
GET: RawHeaders = [
    (b":method", b"GET"),
    (b":scheme", b"https"),
    (b":authority", b"web"),
    (b":path", b"/"),
]


def codec() -> HeaderCodec:
    return HeaderCodec(64 * 1024, 4096)


def test_a_tunnel_request_is_read() -> None:
    request = parse_request([*CONNECT, (b"forwarded", b'for="1.2.3.4:5"'), (b"te", b"trailers")])
    assert (request.method, request.authority) == ("CONNECT", "10.0.0.1:80")
    assert request.headers[0] == ("forwarded", 'for="1.2.3.4:5"')


def test_other_requests_are_read_so_that_they_can_be_refused_politely() -> None:
    assert parse_request(GET).method == "GET"
    extended = [*CONNECT, (b":protocol", b"websocket"), (b":scheme", b"https"), (b":path", b"/")]
    assert parse_request(extended).method == EXTENDED_CONNECT != "CONNECT"


@pytest.mark.parametrize(
    "raw",
    [
        [],
        CONNECT[:1],
        CONNECT[1:],
        [CONNECT[0], (b":authority", b"")],
        [*CONNECT, (b":path", b"/")],
        [*CONNECT, (b":scheme", b"https")],
        [*CONNECT, CONNECT[1]],
        [*CONNECT, (b":status", b"200")],
        [*CONNECT, (b":unknown", b"x")],
        [CONNECT[0], (b"a", b"b"), CONNECT[1]],
        [*CONNECT, (b"Forwarded", b"x")],
        [*CONNECT, (b"", b"x")],
        [*CONNECT, (b"a b", b"x")],
        [*CONNECT, (b"a:b", b"x")],
        [*CONNECT, (b"\xe4", b"x")],
        [*CONNECT, (b"connection", b"close")],
        [*CONNECT, (b"proxy-connection", b"x")],
        [*CONNECT, (b"keep-alive", b"x")],
        [*CONNECT, (b"transfer-encoding", b"chunked")],
        [*CONNECT, (b"upgrade", b"x")],
        [*CONNECT, (b"te", b"gzip")],
        [*CONNECT, (b"a", b"x\r\ny: z")],
        [*CONNECT, (b"a", b"x\x00")],
        [*CONNECT, (b"a", b" x")],
        [*CONNECT, (b"a", b"x\t")],
        [*CONNECT, (b":protocol", b"websocket")],
        [*GET, (b":protocol", b"websocket")],
        GET[:3],
        [*GET[:3], (b":path", b"")],
        [(b":method", b"G T"), *GET[1:]],
    ],
)
def test_malformed_requests_are_found(raw: RawHeaders) -> None:
    with pytest.raises(MalformedError):
        parse_request(raw)


@pytest.mark.parametrize("status", [b"", b"20", b"2000", b"101", b"600", b"+20", b"0x1"])
def test_malformed_responses_are_found(status: bytes) -> None:
    with pytest.raises(MalformedError):
        parse_response([(b":status", status)])
    with pytest.raises(MalformedError):
        parse_response([])


def test_trailers_have_no_pseudo_headers() -> None:
    check_trailers([(b"grpc-status", b"0")])
    with pytest.raises(MalformedError):
        check_trailers([(b":status", b"200")])


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
        request = parse_request(far.decode(near.encode_request("[::1]:80", headers)))
        assert (request.method, request.authority) == ("CONNECT", "[::1]:80")
        assert request.headers == headers
        response = parse_response(far.decode(near.encode_response(503, headers)))
        assert (response.status, response.headers) == (503, headers)
        assert parse_response(far.decode(near.encode_response(200, []))).status == 200


def test_ids_of_single_requests_do_not_fill_the_table() -> None:
    near = codec()
    first = near.encode_request("web:80", [("baggage", "a=b"), ("traceparent", "00-1-1-00")])
    for number in range(500):
        near.encode_request("web:80", [("traceparent", f"00-{number:032}-1-00")])
    again = near.encode_request("web:80", [("baggage", "a=b")])
    assert len(again) == 3 < len(first)


def test_the_first_answer_after_a_table_change_announces_it() -> None:
    near = codec()
    assert near.encode_response(200, []) == b"\x88"
    near.limit_encoder(0)
    near.limit_encoder(0)
    assert near.encode_response(200, []) == b"\x20\x88"
    near.limit_encoder(0)
    assert near.encode_response(200, []) == b"\x88"


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
        raw = codec().decode(block)
    except ConnectionBroken:
        return
    for parse in (parse_request, parse_response, check_trailers):
        try:
            parse(raw)
        except MalformedError:
            pass
