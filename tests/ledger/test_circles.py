"""A correction, a posting of usage and a grant at the same time wait for each other in no circle."""

import asyncio

from ledger.books import GRANTED, SEALED, SECOND, Journal, ask, bucket, charge, faults, grant, head, lease, sell
from tokenworks.base.database import Pool
from tokenworks.core.corrections import Charged
from tokenworks.core.journal import LeaseClose
from tokenworks.ledger import correction_rows, corrections
from tokenworks.ledger.store import transaction


async def test_a_refund_a_posting_and_a_grant(database: Pool) -> None:
    await sell(database, bucket("a", priority=2), granted=GRANTED)
    book = Journal()
    await sell(database, bucket("b", priority=1), granted=GRANTED)
    held = await lease(database, 1, 100)
    book.close(book.open(held), charge(held, 40))
    book.add(LeaseClose(held.lease_id, 60))
    await book.ship(database)

    async def posting(may_go_on: asyncio.Event, has_begun: asyncio.Event) -> None:
        """What `accounts.change` does in the order of ids: revenue first, then what went back to `a`."""
        async with database.connection() as conn:
            for code in ("revenue/tokens", "bucket/a/available"):
                await conn.execute("UPDATE account SET balance = balance WHERE code = %s", (code,))
                has_begun.set()
                await may_go_on.wait()

    may_go_on, has_begun = asyncio.Event(), asyncio.Event()
    granting = None
    async with transaction(database, "shop", 12 * SECOND, SEALED) as conn:
        await correction_rows.lock_books(conn, ["b"])
        post = asyncio.create_task(posting(may_go_on, has_begun))
        await has_begun.wait()
        # Both buckets are the account's: the grant locks what is available in `a`, and waits for `b`.
        granting = asyncio.create_task(grant(database, ask(2, 10)))
        await asyncio.sleep(0.3)
        may_go_on.set()
        await asyncio.sleep(0.3)
        used = [Charged(0, "b", "token", 40)]
        await corrections.refund(conn, head("cor_1", "usage_refunded", "req-j1-1"), used, None, 50 * SECOND)
    assert (await granting).leases
    await post
    assert await faults(database) == []
