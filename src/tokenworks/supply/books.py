"""What a supplier's served attempts have cost and what it is owed, read from the ledger. Settlement comes later."""

import msgspec
from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from tokenworks.core import postings
from tokenworks.ledger import balance

Connection = AsyncConnection[TupleRow]


class Owed(msgspec.Struct, frozen=True):
    """In nano-units of the currency, all legal entities together."""

    currency: str
    payable: int
    cost_to_date: int


async def owed(connection: Connection, supplier_id: str, currency: str) -> Owed:
    """What a supplier that is paid in this currency is owed now, and what it has cost so far."""
    return Owed(
        currency,
        await _sum(connection, postings.payable(supplier_id), currency),
        await _sum(connection, postings.cost(supplier_id), currency),
    )


async def _sum(connection: Connection, code: str, currency: str) -> int:
    accounts = await balance.accounts(connection, code)
    return sum(account.balance for account in accounts if (account.code, account.unit) == (code, currency))
