"""What metering posts of a repaired journal whose hole took an extension."""

from pathlib import Path

from ledger.books import Journal, bucket, charge, faults, lease, sell
from shipping.damaged import SEGMENT_BYTES, flip
from tokenworks.base.database import Pool
from tokenworks.base.journal import Disk, JournalWriter, read_frames, split
from tokenworks.core.wire import ShipRequest
from tokenworks.meter.posting import post_batch
from tokenworks.shipping.repair import repair


async def test_a_hole_that_took_an_extension_leaves_sound_books(database: Pool, tmp_path: Path) -> None:
    """What is left is an opening of 5 and a charge of 60: the worker had reserved them, or it had not charged them."""
    await sell(database, bucket("b"))
    held = await lease(database, 1, 100)
    book = Journal("jrn_a")
    opening = book.open(held, amount=5)
    extension = book.extend(opening, held, amount=60)
    book.close(opening, charge(held, 60))
    writer = JournalWriter.create(tmp_path / "journal" / "gw-0" / "jrn_a", SEGMENT_BYTES)
    for _, payload in split(book.data):
        writer.append(payload)
    writer.close()
    flip(writer.folder, extension)
    repair(writer.folder, writer.folder.stat().st_ino, 0, 0, SEGMENT_BYTES, Disk())
    left = read_frames(writer.folder, 0, SEGMENT_BYTES).data
    reply = (await post_batch(database, ShipRequest("jrn_a", "gw-0", 0, left, final=True), 1)).reply
    assert not reply.fault
    assert await faults(database) == []
