import pytest

from ztunnel.hbone.headers import (
    EXTENDED_CONNECT,
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
