"""The journal file: the durable record of what a worker did, until the ledger has committed it.

This module is the door; the parts are `journal_frames` (bytes), `journal_folder` (files and lock), `journal_segment`
(space), `journal_writer`, `journal_reader` and `journal_sync` (fsync). All of them carry frames of bytes; what a frame
says is defined in `core`.

Format, version 1, little endian. A journal is a folder of segment files of fixed, allocated size:

    segment  64 bytes of header, frames, zeros
    header   magic "TWJ1", version u16, segment number u32, base position u64, journal id 30 bytes padded with zeros,
             12 zero bytes, crc32 u32 of all before it; a header of zeros is a segment allocated and not yet in use
    frame    payload length u32, crc32 u32 of length bytes and payload, payload of 1 to 32,760 bytes

A frame never crosses segments. Length 0 is the end of what was written; length 0xFFFFFFFF, or fewer than 4 bytes left,
sends the reader to the next segment. A position counts frame bytes since the journal's start, nothing else.
"""

from tokenworks.base.journal_folder import (
    JournalLive,
    Mark,
    damaged_journals,
    finish,
    finished_journals,
    is_live,
    is_repaired,
    list_journals,
    oldest_position,
    read_mark,
    remove,
    remove_below,
    set_aside,
    size_of,
    take_lock,
    unmark,
    write_mark,
)
from tokenworks.base.journal_frames import (
    FRAME_BYTES_MAX,
    PAYLOAD_BYTES_MAX,
    FrameFault,
    JournalDamaged,
    JournalFault,
    split,
)
from tokenworks.base.journal_reader import Batch, read_frames, valid_end
from tokenworks.base.journal_segment import Disk
from tokenworks.base.journal_sync import GroupSync
from tokenworks.base.journal_writer import JournalFull, JournalWriter

__all__ = [
    "FRAME_BYTES_MAX",
    "PAYLOAD_BYTES_MAX",
    "Batch",
    "Disk",
    "FrameFault",
    "GroupSync",
    "JournalDamaged",
    "JournalFault",
    "JournalFull",
    "JournalLive",
    "JournalWriter",
    "Mark",
    "damaged_journals",
    "finish",
    "finished_journals",
    "is_live",
    "is_repaired",
    "list_journals",
    "oldest_position",
    "read_frames",
    "read_mark",
    "remove",
    "remove_below",
    "set_aside",
    "size_of",
    "split",
    "take_lock",
    "unmark",
    "valid_end",
    "write_mark",
]
