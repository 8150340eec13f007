"""The byte format of a journal: the header of a segment, and frames with a checksum.

A frame is length, checksum, payload; what a payload means is for the rooms that write and read it. All numbers are
little endian. Nothing here touches a file: see `journal_writer` and `journal_reader`.
"""

import re
import struct
import zlib
from collections.abc import Iterator

import msgspec

MAGIC = b"TWJ1"
VERSION = 1
ID_BYTES_MAX = 30
SEGMENT_HEADER_BYTES = 64
FRAME_HEADER_BYTES = 8
# The smallest segment and the smallest shipping batch of the settings hold such a frame, so none ever gets stuck.
FRAME_BYTES_MAX = 32 << 10
PAYLOAD_BYTES_MAX = FRAME_BYTES_MAX - FRAME_HEADER_BYTES
# Stands where a length would, in a segment whose rest was too small for the next frame.
PAD = b"\xff\xff\xff\xff"

# magic, version, segment number, base position, journal id, zeros; the checksum of these 60 bytes follows.
_SEGMENT_HEADER = struct.Struct("<4sHIQ30s12x")
_FRAME_HEADER = struct.Struct("<II")
_U32 = struct.Struct("<I")
_pack_u32 = _U32.pack
_pack_frame_header = _FRAME_HEADER.pack
_unpack_frame_header = _FRAME_HEADER.unpack_from
_crc32 = zlib.crc32
# A length that a frame may have: its upper two bytes are zero and its lower two are not. Bytes of zeros hold none.
_LENGTHS = re.compile(rb"(?=(?:[^\0].|\0[^\0])\0\0)", re.DOTALL)


class JournalFault(Exception):
    """The journal cannot go on or cannot be read: the disk failed, bytes are missing, or the format is not ours."""


class JournalDamaged(JournalFault):
    """Bytes that were written whole once are not any more; what is left is evidence, and nothing of it is changed."""


class FrameFault(JournalFault):
    """Bytes that should be whole frames are not."""


class SegmentHeader(msgspec.Struct, frozen=True):
    """What stands at the start of a segment that is in use. `base` is the journal position of its first frame."""

    number: int
    journal_id: str
    base: int


def pack_header(header: SegmentHeader) -> bytes:
    """The 64 bytes at the start of a segment."""
    name = header.journal_id.encode("ascii")
    if not 0 < len(name) <= ID_BYTES_MAX:
        raise ValueError(f"a journal id has 1 to {ID_BYTES_MAX} characters, not {header.journal_id!r}")
    body = _SEGMENT_HEADER.pack(MAGIC, VERSION, header.number, header.base, name)
    return body + _pack_u32(_crc32(body))


def unpack_header(data: bytes) -> SegmentHeader | None:
    """The header, or None where none was ever completely written; a version we do not know is a fault."""
    if len(data) < SEGMENT_HEADER_BYTES:
        return None
    body = data[: _SEGMENT_HEADER.size]
    magic, version, number, base, name = _SEGMENT_HEADER.unpack(body)
    if magic != MAGIC or _U32.unpack_from(data, len(body))[0] != _crc32(body):
        return None
    if version != VERSION:
        raise JournalFault(f"journal format version {version} is not known here; this program writes {VERSION}")
    return SegmentHeader(number=number, journal_id=name.rstrip(b"\0").decode("ascii"), base=base)


class _Lengths(dict[int, int]):
    """Checksums of lengths that a frame may have: the beginnings of the checksums of such frames, remembered."""

    def __missing__(self, size: int) -> int:
        checksum = self[size] = _crc32(_pack_u32(size))
        return checksum


_checksum_of_length = _Lengths()


def frame(payload: bytes) -> bytes:
    """Length, checksum over length and payload, payload."""
    size = len(payload)
    if not 0 < size <= PAYLOAD_BYTES_MAX:
        raise ValueError(f"a payload has 1 to {PAYLOAD_BYTES_MAX} bytes, not {size}")
    return _pack_frame_header(size, _crc32(payload, _checksum_of_length[size])) + payload


def frame_size(data: memoryview, offset: int) -> int:
    """Bytes of the frame at `offset` including its header; 0 where none is, or only a part, or a damaged one."""
    start = offset + FRAME_HEADER_BYTES
    if start > len(data):
        return 0
    size, checksum = _unpack_frame_header(data, offset)
    end = start + size
    if not 0 < size <= PAYLOAD_BYTES_MAX or end > len(data):
        return 0
    if _crc32(data[start:end], _crc32(data[offset : offset + 4])) != checksum:
        return 0
    return end - offset


def whole_frames(data: memoryview) -> int:
    """How many bytes at the start of `data` are whole, undamaged frames."""
    offset = 0
    while size := frame_size(data, offset):
        offset += size
    return offset


def has_frame(data: bytes, starts: int) -> bool:
    """Whether a whole, undamaged frame begins at any of the first `starts` bytes."""
    view = memoryview(data)
    return any(found.start() < starts and frame_size(view, found.start()) for found in _LENGTHS.finditer(data))


def next_frame(data: bytes, start: int) -> int:
    """Where the next whole, undamaged frame begins at or after `start`; -1 if there is none."""
    view = memoryview(data)
    return next((found.start() for found in _LENGTHS.finditer(data, start) if frame_size(view, found.start())), -1)


def split(data: bytes, position: int = 0) -> Iterator[tuple[int, bytes]]:
    """Position and payload of every frame, the first of which is at `position`.

    Anything that is not a whole, undamaged frame is a `FrameFault`.
    """
    offset, whole = 0, len(data)
    while offset < whole:
        start = offset + FRAME_HEADER_BYTES
        if start > whole:
            raise FrameFault(f"no whole frame at byte {offset} of {whole}")
        size, checksum = _unpack_frame_header(data, offset)
        end = start + size
        payload = data[start:end]
        # The same questions as in `frame_size`, asked here because metering asks them of every entry.
        if not 0 < size <= PAYLOAD_BYTES_MAX or end > whole or _crc32(payload, _checksum_of_length[size]) != checksum:
            raise FrameFault(f"no whole frame at byte {offset} of {whole}")
        yield position + offset, payload
        offset = end
