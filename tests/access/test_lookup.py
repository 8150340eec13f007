"""Key lookups: many that come at once cost few queries, each sees what was so when it came, faults reach who asked."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import psycopg
import pytest

from shop.shopfront import NOON, holder, opened
from tokenworks.access import keys
from tokenworks.access.keys import Connection
from tokenworks.access.lookup import KeyDesk
from tokenworks.base.database import Pool
from tokenworks.shop import sealed


class Counting:
    """A pool that counts how often a connection is taken."""

    def __init__(self, pool: Pool) -> None:
        self.taken = 0
        self.is_away = False
        self._pool = pool

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        self.taken += 1
        if self.is_away:
            raise psycopg.OperationalError("away")
        async with self._pool.connection() as connection:
            yield connection


async def test_keys_that_are_asked_for_at_once_are_looked_up_together(database: Pool) -> None:
    shop = await opened(database)
    async with sealed.transaction(database, NOON) as connection:
        secrets = await keys.issue_all(connection, [holder(shop.customer)] * 600, "many", NOON)
    pool = Counting(database)
    desk = KeyDesk(pool)  # pyright: ignore[reportArgumentType]
    digests = [keys.digest(secret) for secret in [*secrets, "unknown"]]
    found = await asyncio.gather(*map(desk.find, digests))
    assert found[-1] is None
    assert {key.billing_account_id for key in found[:-1] if key} == {shop.customer.billing_account_id}
    assert len({key.key_id for key in found[:-1] if key}) == 600
    assert pool.taken <= 4


async def test_a_key_that_changed_before_it_was_asked_for_is_never_answered_as_it_was(database: Pool) -> None:
    shop = await opened(database)
    async with sealed.transaction(database, NOON) as connection:
        record, secret = await keys.issue(connection, holder(shop.customer), "laptop", NOON)
    desk = KeyDesk(database)
    before = asyncio.create_task(desk.find(keys.digest(secret)))
    await asyncio.sleep(0)
    async with sealed.transaction(database, NOON) as connection:
        await keys.revoke(connection, record.id, NOON + 1)
    after = await desk.find(keys.digest(secret))
    assert after is not None
    assert after.refused == "key_revoked"
    await before


async def test_who_asks_hears_of_the_fault_and_the_next_is_answered(database: Pool) -> None:
    pool = Counting(database)
    desk = KeyDesk(pool)  # pyright: ignore[reportArgumentType]
    pool.is_away = True
    for each in await asyncio.gather(desk.find(b"1"), desk.find(b"2"), return_exceptions=True):
        assert isinstance(each, psycopg.OperationalError)
    pool.is_away = False
    gone = asyncio.create_task(desk.find(b"3"))
    await asyncio.sleep(0)
    gone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gone
    assert await desk.find(b"4") is None
