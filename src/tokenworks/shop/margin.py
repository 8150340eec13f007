"""Margin: revenue recognised less what the served attempts cost, by currency, out of the ledger.

For the whole business it is read from the ledger's revenue and cost accounts; for one customer from the liabilities
of its buckets and the hourly sums of its records' attempts, which the ledger's accounts do not tell apart.
"""

import msgspec
from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from tokenworks.ledger import balance
from tokenworks.meter import usage_hours

Connection = AsyncConnection[TupleRow]


class Margin(msgspec.Struct, frozen=True):
    """Amounts in nano-units of the currency. Cost in another currency than the revenue stays apart."""

    currency: str
    revenue: int
    cost: int

    @property
    def margin(self) -> int:
        """What is left; below zero when use costs more than it earns."""
        return self.revenue - self.cost


async def of_business(connection: Connection) -> list[Margin]:
    """By currency, all legal entities together."""
    revenue = await _sums(connection, "revenue/")
    cost = await _sums(connection, "cost/")
    return _margins(revenue, cost)


async def of_customer(connection: Connection, billing_account_id: str) -> list[Margin]:
    """By currency, of one billing account."""
    revenue: dict[str, int] = {}
    for bucket in await balance.wallet(connection, billing_account_id):
        revenue[bucket.currency] = revenue.get(bucket.currency, 0) + bucket.recognised
    return _margins(revenue, await usage_hours.cost_of(connection, billing_account_id))


async def _sums(connection: Connection, prefix: str) -> dict[str, int]:
    sums: dict[str, int] = {}
    for account in await balance.accounts(connection, prefix):
        sums[account.unit] = sums.get(account.unit, 0) + account.balance
    return sums


def _margins(revenue: dict[str, int], cost: dict[str, int]) -> list[Margin]:
    return [Margin(currency, revenue.get(currency, 0), cost.get(currency, 0)) for currency in sorted({*revenue, *cost})]
