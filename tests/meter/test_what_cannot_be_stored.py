"""What one journal breaks in the database must not keep the others of its turn out."""

import asyncio

from ledger.books import used_journals
from tokenworks.base.database import Pool
from tokenworks.core.journal import Opening
from tokenworks.meter.desk import Desk


async def test_a_journal_that_the_database_cannot_store_keeps_no_other_out(database: Pool) -> None:
    good, bad = await used_journals(database, 2)
    # Whatever the reason: here a count beyond bigint, which decodes and cannot be stored.
    position = bad.add(Opening("req-x", 5, "le", "acc", "key", "m", True, 1 << 63, 1, ()))
    bad.close(position)
    desk = Desk(database)
    for _ in range(3):  # they come again, and again together
        answers = await asyncio.gather(*(desk.post(each.rest(), is_watched=False) for each in (bad, good)))
    assert answers[0].reply.fault
    assert answers[1].reply.posted_through == len(good.data), answers[1].reply.fault
