from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ztunnel.hbone import metadata
from ztunnel.hbone.authority import Authority
from ztunnel.hbone.metadata import (
    Forwarded,
    format_baggage,
    format_forwarded,
    format_traceparent,
    parse_baggage,
    parse_forwarded,
    parse_traceparent,
)


def test_forwarded_is_quoted_and_names_the_service() -> None:
    assert format_forwarded(IPv4Address("1.2.3.4"), 5678) == 'for="1.2.3.4:5678"'
    assert (
        format_forwarded(IPv6Address("2001:db8::1"), 5678, "web.shop.svc")
        == 'for="[2001:db8::1]:5678";host=web.shop.svc'
    )
    assert format_forwarded(IPv6Address("::ffff:1.2.3.4"), 1) == 'for="1.2.3.4:1"'


@pytest.mark.parametrize(
    ("text", "forwarded"),
    [
        ('for="1.2.3.4:5"', Forwarded(Authority(IPv4Address("1.2.3.4"), 5), None)),
        ("For=1.2.3.4:5;HOST=web", Forwarded(Authority(IPv4Address("1.2.3.4"), 5), "web")),
        ('for="[::1]:5" ; host=web', Forwarded(Authority(IPv6Address("::1"), 5), "web")),
        ('proto=h2;for="1.2.3.4:5"', Forwarded(Authority(IPv4Address("1.2.3.4"), 5), None)),
        ("for=unknown, for=1.2.3.4:5", Forwarded(None, None)),
        ("", Forwarded(None, None)),
        ('for="1.2.3.4', Forwarded(None, None)),
        (";;;===", Forwarded(None, None)),
    ],
)
def test_forwarded_is_read_mildly(text: str, forwarded: Forwarded) -> None:
    assert parse_forwarded(text) == forwarded


@settings(max_examples=40, deadline=None)
@given(st.dictionaries(st.from_regex(r"\A[a-z.]{1,30}\Z"), st.text(min_size=1, max_size=60)))
def test_baggage_round_trip(members: dict[str, str]) -> None:
    members = {
        key: value.encode("utf-8", "replace").decode()
        for key, value in list(members.items())[: metadata.BAGGAGE_MEMBERS_MAX]
    }
    text = format_baggage(members)
    assert text.isascii()
    if len(text) <= metadata.BAGGAGE_CHARS_MAX:
        assert parse_baggage(text) == members


def test_baggage_is_bounded_and_tolerant() -> None:
    assert parse_baggage("a=1;p=2, b = 2 ,c,=3,a=9") == {"a": "1", "b": "2"}
    many = ",".join(f"k{number}=v" for number in range(1_000))
    assert len(parse_baggage(many)) == metadata.BAGGAGE_MEMBERS_MAX
    assert len(parse_baggage("k=" + "v" * 100_000)["k"]) < metadata.BAGGAGE_CHARS_MAX


def test_empty_values_are_left_out() -> None:
    assert format_baggage({"service.name": "web", "service.version": ""}) == "service.name=web"


def test_traceparent_round_trip() -> None:
    text = format_traceparent(bytes(range(16)), bytes(range(8)))
    assert text == "00-000102030405060708090a0b0c0d0e0f-0001020304050607-00"
    parsed = parse_traceparent(text)
    assert parsed is not None
    assert parsed.trace_id == "000102030405060708090a0b0c0d0e0f"
    with pytest.raises(ValueError):
        format_traceparent(b"short", bytes(8))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "00-" + "0" * 32 + "-" + "1" * 16 + "-00",
        "00-" + "1" * 32 + "-" + "0" * 16 + "-00",
        "ff-" + "1" * 32 + "-" + "1" * 16 + "-00",
        "00-" + "A" * 32 + "-" + "1" * 16 + "-00",
        "00-" + "1" * 32 + "-" + "1" * 16 + "-00-more",
        "01-" + "1" * 32 + "-" + "1" * 16 + "-00-" + "x" * 10_000,
    ],
)
def test_a_bad_traceparent_is_absent(text: str) -> None:
    assert parse_traceparent(text) is None


@settings(max_examples=40, deadline=None)
@given(st.text(max_size=400))
def test_no_text_is_too_strange(text: str) -> None:
    parse_forwarded(text)
    parse_baggage(text)
    parse_traceparent(text)
