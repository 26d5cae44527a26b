from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.ztunnel.hbone.pair import frames_of
from ztunnel.hbone import frames


@settings(max_examples=30, deadline=None)
@given(st.binary(max_size=200), st.integers(1, 60))
def test_a_header_block_is_split_at_the_peers_frame_size(block: bytes, limit: int) -> None:
    parsed = frames_of(frames.pack_header_block(5, frames.END_STREAM, block, limit))
    assert b"".join(payload for *_, payload in parsed) == block
    assert all(len(payload) <= limit for *_, payload in parsed)
    kinds = [kind for kind, *_ in parsed]
    assert kinds == [frames.HEADERS] + [frames.CONTINUATION] * (len(parsed) - 1)
    ends = [flags & frames.END_HEADERS for _, flags, *_ in parsed]
    assert ends == [0] * (len(parsed) - 1) + [frames.END_HEADERS]
    assert next(flags & frames.END_STREAM for _, flags, *_ in parsed) == frames.END_STREAM


def test_small_frames_have_the_layout_of_rfc_9113() -> None:
    assert frames.pack_window_update(3, 256) == bytes.fromhex("000004 08 00 00000003 00000100")
    assert frames.pack_rst_stream(3, 8) == bytes.fromhex("000004 03 00 00000003 00000008")
    assert frames.pack_goaway(7, 2, b"x") == bytes.fromhex(
        "000009 07 00 00000000 00000007 00000002 78"
    )
    assert frames.pack_settings([(4, 1)]) == bytes.fromhex("000006 04 00 00000000 0004 00000001")
    assert frames.pack_frame(6, 1, 0, bytes(8)) == bytes.fromhex("000008 06 01 00000000" + "00" * 8)


@given(st.lists(st.tuples(st.integers(0, 0xFFFF), st.integers(0, 0xFFFF_FFFF))))
@settings(max_examples=30, deadline=None)
def test_settings_round_trip(pairs: list[tuple[int, int]]) -> None:
    assert list(frames.parse_settings(frames.pack_settings(pairs)[9:])) == pairs


def test_goaway_round_trip_ignores_the_reserved_bit() -> None:
    assert frames.parse_goaway(b"\xff\xff\xff\xff\x00\x00\x00\x02debug") == (0x7FFF_FFFF, 2)
