"""The bytes of the journal format, one by one, and what happens to bytes that are not the format."""

import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenworks.base.journal import PAYLOAD_BYTES_MAX, FrameFault, JournalFault, split
from tokenworks.base.journal_frames import SegmentHeader, frame, has_frame, pack_header, unpack_header, whole_frames

HEADER = SegmentHeader(number=3, journal_id="jnl_06f1v30000000000000000000x", base=5_000_000_000)
HEADER_BYTES = bytes.fromhex(
    "54574a31"  # TWJ1
    "0100"  # version 1
    "03000000"  # segment 3
    "00f2052a01000000"  # base 5,000,000,000
    "6a6e6c5f3036663176333030303030303030303030303030303030303078"  # journal id
    "000000000000000000000000"
    "f01a53e5"  # crc32
)
FRAME_BYTES = bytes.fromhex("050000007a00ac5c68656c6c6f")


def test_header_bytes() -> None:
    assert pack_header(HEADER) == HEADER_BYTES
    assert unpack_header(HEADER_BYTES + b"frames follow") == HEADER


def test_frame_bytes() -> None:
    assert frame(b"hello") == FRAME_BYTES
    assert list(split(FRAME_BYTES + FRAME_BYTES)) == [(0, b"hello"), (13, b"hello")]


@pytest.mark.parametrize("position", range(64))
def test_header_with_a_changed_byte_is_none(position: int) -> None:
    changed = bytearray(HEADER_BYTES)
    changed[position] ^= 0x40
    assert unpack_header(bytes(changed)) is None


@pytest.mark.parametrize("data", [b"", bytes(64), HEADER_BYTES[:63]])
def test_header_that_was_never_written_is_none(data: bytes) -> None:
    assert unpack_header(data) is None


def test_header_of_a_later_version_is_a_fault() -> None:
    body = HEADER_BYTES[:4] + struct.pack("<H", 2) + HEADER_BYTES[6:60]
    with pytest.raises(JournalFault, match="version 2"):
        unpack_header(body + struct.pack("<I", zlib.crc32(body)))


@pytest.mark.parametrize("journal_id", ["", "x" * 31])
def test_journal_id_has_a_length(journal_id: str) -> None:
    with pytest.raises(ValueError, match="1 to 30"):
        pack_header(SegmentHeader(number=0, journal_id=journal_id, base=0))


@pytest.mark.parametrize("size", [0, PAYLOAD_BYTES_MAX + 1])
def test_payload_has_a_size(size: int) -> None:
    with pytest.raises(ValueError, match="1 to 32760"):
        frame(bytes(size))


@given(st.lists(st.binary(min_size=1, max_size=200)))
def test_split_gives_back_what_was_framed(payloads: list[bytes]) -> None:
    data = b"".join(map(frame, payloads))
    assert [payload for _, payload in split(data)] == payloads
    assert whole_frames(memoryview(data)) == len(data)


@given(st.lists(st.binary(min_size=1, max_size=20), min_size=1, max_size=5), st.data())
def test_a_changed_byte_is_found(payloads: list[bytes], data: st.DataObject) -> None:
    changed = bytearray(b"".join(map(frame, payloads)))
    changed[data.draw(st.integers(0, len(changed) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(FrameFault):
        list(split(bytes(changed)))


@given(st.binary(max_size=50), st.binary(min_size=1, max_size=600), st.binary(max_size=50))
def test_a_whole_frame_is_found_wherever_it_begins(before: bytes, payload: bytes, after: bytes) -> None:
    data = before + frame(payload) + after
    assert has_frame(data, len(before) + 1)
    assert has_frame(data, len(data))


@given(st.binary(min_size=1, max_size=600), st.data())
def test_a_part_of_a_frame_is_none(payload: bytes, data: st.DataObject) -> None:
    torn = frame(payload + b"!")[: data.draw(st.integers(0, 8 + len(payload)))]
    assert not has_frame(torn + bytes(1000), len(torn) + 1000)


def test_a_frame_that_begins_later_is_not_asked_for() -> None:
    assert not has_frame(b"torn" + FRAME_BYTES, 4)
    assert has_frame(b"torn" + FRAME_BYTES, 5)


@given(st.binary(max_size=100))
def test_arbitrary_bytes_never_crash_the_reader(data: bytes) -> None:
    assert 0 <= whole_frames(memoryview(data)) <= len(data)


def test_short_data_is_a_fault_after_its_whole_frames() -> None:
    parts = split(FRAME_BYTES + FRAME_BYTES[:-1])
    assert next(parts) == (0, b"hello")
    with pytest.raises(FrameFault, match="byte 13 of 25"):
        next(parts)
