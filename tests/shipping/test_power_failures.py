"""A power failure takes a closing that was not synced; the successor still closes at the last checkpoint."""

import asyncio
from pathlib import Path

from shipping.damaged import GRANTED, SEGMENT_BYTES, USED, mine, opened, segments, settings_in
from shipping.test_keeping import shipping
from tokenworks.base.journal import JournalFault, JournalWriter
from tokenworks.core.journal import Checkpoint, Closing, Head, LeaseClose, LeaseTaken, Opening, encode
from tokenworks.core.purse import Charge
from tokenworks.core.usage import Tokens
from tokenworks.gateway.flow import Errands
from tokenworks.gateway.records import Records
from tokenworks.shipping.succession import succeed


async def test_a_closing_that_the_power_took_is_made_good_from_the_checkpoint(tmp_path: Path) -> None:
    settings, office = settings_in(tmp_path), opened()
    writer = JournalWriter.create(settings.journal_dir / "gw-0" / "jrn_a", SEGMENT_BYTES)
    faults: list[JournalFault] = []
    records = Records(writer, None, Errands(), faults.append)
    writer.append(encode(Head("jrn_a", "gw-0", 1)))
    assert records.append(LeaseTaken(1, GRANTED))
    opening = records.open(Opening("req", 1, "le_1", "ba_1", "key_1", "m", True, 80, 20, ()), 1_000)
    assert isinstance(opening, int)
    seen = Charge(1, "bkt_1", "personal@1", "token", Tokens(4), 4)
    assert records.append(Checkpoint(opening, Tokens(4), (seen,), ()))
    writer.flush()
    writer.sync()
    durable = segments(writer.folder)
    charge = Charge(1, "bkt_1", "personal@1", "token", USED, 10)
    records.close(Closing(opening, 9, "finished", "reported", USED, USED, USED, (), (charge,), (), 0))
    assert records.append(LeaseClose(1, GRANTED - 10))
    writer.flush()  # and the disk is slow: not synced yet
    async with shipping(office, settings, writer, lambda: records.keep_from):
        while not (writer.folder / "posted").exists():  # noqa: ASYNC110
            await asyncio.sleep(0.001)
    writer.close()
    for name, data in durable.items():
        (writer.folder / name).write_bytes(data)  # the power failed
    await succeed(office, settings, mine(settings))
    assert office.final == {"jrn_a"}
    ((closing,),) = office.closings("jrn_a").values()
    assert (closing.ending, closing.charges) == ("orphaned", (seen,)), "delivered, and known to be, but not charged"
    assert [entry for entry in office.entries("jrn_a") if isinstance(entry, LeaseClose)] == [LeaseClose(1, GRANTED - 4)]
