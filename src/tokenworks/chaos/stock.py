"""The customers' balances in a chaos run: packages so small that many are near zero at any moment, and top-ups.

The first third of the customers has large packages and is served from steady slices; the others live from one small
package to the next. A top-up that a kill interrupts is tried again in the next round.
"""

import asyncio

import psycopg

from tokenworks.app.client import OfficeClient
from tokenworks.base import log
from tokenworks.base.database import Pool
from tokenworks.bench import books
from tokenworks.bench.books import Buyer
from tokenworks.shop.parties import Customer

SMALL = "chaos-small"
GRANTED_SMALL = 600
_LOW = 200
_ROUND_S = 0.5

_log = log.get(__name__)


def catalog(office: OfficeClient, ports: list[int]) -> None:
    """The operator with both packages, and an endpoint on each port."""
    books.catalog(office, ports)
    books.package(office, SMALL, GRANTED_SMALL)


def steady(count: int) -> int:
    """How many of so many customers, the first of them, have large packages."""
    return count // 3


async def customers(pool: Pool, count: int) -> list[Buyer]:
    """So many customers with their first small package; the first third gets a large one as well."""
    buyers = [buyer async for batch in books.customers(pool, count, SMALL) for buyer in batch]
    await books.sell(pool, books.OFFER, [buyer.customer for buyer in buyers[: steady(count)]])
    return buyers


class TopUps:
    """Sells a small package to whoever is low, round after round; `sold` counts them."""

    def __init__(self, pool: Pool, buyers: list[Buyer]) -> None:
        self.sold = 0
        self._pool = pool
        self._customers = {buyer.customer.billing_account_id: buyer.customer for buyer in buyers}

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                low = await self._low()
                if low:
                    await books.sell(self._pool, SMALL, low)
                    self.sold += len(low)
            except psycopg.Error as fault:
                _log.info("a top-up waits", extra={"reason": str(fault).partition("\n")[0]})
            await asyncio.sleep(_ROUND_S)

    async def _low(self) -> list[Customer]:
        async with self._pool.connection() as connection:
            cursor = await connection.execute(
                """
                SELECT b.billing_account_id FROM bucket b JOIN account a ON a.code = 'bucket/' || b.id || '/available'
                GROUP BY b.billing_account_id HAVING sum(a.balance) < %s LIMIT %s
                """,
                (_LOW, books.AT_ONCE),
            )
            return [self._customers[str(row[0])] for row in await cursor.fetchall()]
