"""The ledger as plain-text accounting, in pieces: each posting a transaction with its event, balances at both ends.

The caller gives a connection in one REPEATABLE READ transaction, in which the pieces are of one moment. Formats and
names are `core.plain_text`.
"""

from collections.abc import AsyncGenerator
from typing import Any

import msgspec

from tokenworks.core import plain_text
from tokenworks.core.plain_text import Format, Leg, Transaction
from tokenworks.ledger import history
from tokenworks.ledger.balance import AccountBalance
from tokenworks.ledger.history import Moment
from tokenworks.ledger.seal import Connection

_ROWS_AT_ONCE = 2_000
_FOREVER_NS = (1 << 62) - 1


class Extent(msgspec.Struct, frozen=True):
    """What to export: postings from a time until before another, of one legal entity or of all; None is without end."""

    from_ns: int | None = None
    to_ns: int | None = None
    legal_entity_id: str | None = None

    @property
    def values(self) -> dict[str, object]:
        """For the queries here."""
        last_ns = _FOREVER_NS if self.to_ns is None else self.to_ns - 1
        return {"from": self.from_ns or 0, "last": last_ns, "entity": self.legal_entity_id}


class _Account(msgspec.Struct, frozen=True):
    name: str
    unit: str


async def export(conn: Connection, form: Format, extent: Extent) -> AsyncGenerator[str]:
    """The whole text. It ends with a line that counts the transactions; without it the text was cut off."""
    writer, values = plain_text.writer(form), extent.values
    first_ns, last_ns = await _ends(conn, values)
    opening = await _balances(conn, (extent.from_ns or 0) - 1, extent) if extent.from_ns else []
    closing = await _balances(conn, int(str(values["last"])), extent)
    accounts = await _touched(conn, values)
    known = {*accounts.values(), *(_Account(leg.account, leg.unit) for leg in opening)}
    names, units = sorted({each.name for each in known}), sorted({each.unit for each in known})
    first_ns = first_ns if extent.from_ns is None else extent.from_ns
    day = plain_text.day_of(first_ns)
    yield writer.head(f"Tokenworks {extent.legal_entity_id or ''}".strip(), units, names, day)
    if opening:
        yield writer.transaction(Transaction("opening_balances", "", first_ns, first_ns, tuple(opening)))
    count = 0
    async for transaction in _transactions(conn, values, accounts):
        count += 1
        yield writer.transaction(transaction)
    end_ns = (last_ns if extent.to_ns is None else extent.to_ns - 1) + plain_text.DAY_NS
    left = {(leg.account, leg.unit): leg for leg in closing}
    shown = sorted(known, key=lambda each: (each.name, each.unit))
    legs = [left.get((each.name, each.unit), Leg(each.name, each.unit, 0)) for each in shown]
    yield writer.balances(plain_text.day_of(end_ns), legs)
    yield writer.end(count + bool(opening))


async def _ends(conn: Connection, values: dict[str, object]) -> tuple[int, int]:
    cursor = await conn.execute(
        """SELECT coalesce(min(at_ns), 0), coalesce(max(at_ns), 0) FROM posting
           WHERE at_ns BETWEEN %(from)s AND %(last)s""",
        values,
    )
    row = await cursor.fetchone()
    return (int(row[0]), int(row[1])) if row else (0, 0)


async def _balances(conn: Connection, at_ns: int, extent: Extent) -> list[Leg]:
    found = await history.accounts(conn, "", Moment(at_ns), extent.legal_entity_id)
    return [_leg(each) for each in found]


def _leg(found: AccountBalance) -> Leg:
    name = plain_text.account_name(found.legal_entity_id, found.code)
    return Leg(name, found.unit, found.balance if found.debit_normal else -found.balance)


async def _touched(conn: Connection, values: dict[str, object]) -> dict[int, _Account]:
    cursor = await conn.execute(
        """SELECT id, legal_entity_id, code, unit FROM account WHERE id IN (
               SELECT unnest(ARRAY[t.debit_account_id, t.credit_account_id])
               FROM posting p JOIN transfer t ON t.posting_id = p.id
               WHERE p.at_ns BETWEEN %(from)s AND %(last)s
                   AND (%(entity)s::text IS NULL OR p.legal_entity_id = %(entity)s))""",
        values,
    )
    return {
        int(row[0]): _Account(plain_text.account_name(row[1], row[2]), str(row[3])) for row in await cursor.fetchall()
    }


async def _transactions(
    conn: Connection, values: dict[str, object], accounts: dict[int, _Account]
) -> AsyncGenerator[Transaction]:
    """Postings in the order of their ids; a cursor of the database gives them in pieces."""
    async with conn.cursor(name="export") as cursor:
        cursor.itersize = _ROWS_AT_ONCE
        await cursor.execute(
            """SELECT p.id, p.kind, p.event_id, p.at_ns, p.used_at_ns, t.debit_account_id, t.credit_account_id, t.amount
               FROM posting p JOIN transfer t ON t.posting_id = p.id
               WHERE p.at_ns BETWEEN %(from)s AND %(last)s
                   AND (%(entity)s::text IS NULL OR p.legal_entity_id = %(entity)s)
               ORDER BY p.id""",
            values,
        )
        rows: list[tuple[Any, ...]] = []
        async for row in cursor:
            if rows and rows[0][0] != row[0]:
                yield _transaction(rows, accounts)
                rows = []
            rows.append(row)
        if rows:
            yield _transaction(rows, accounts)


def _transaction(rows: list[tuple[Any, ...]], accounts: dict[int, _Account]) -> Transaction:
    """The net leg of every account that a posting moved."""
    sums: dict[int, int] = {}
    for *_, debit, credit, amount in rows:
        sums[debit] = sums.get(debit, 0) + int(amount)
        sums[credit] = sums.get(credit, 0) - int(amount)
    legs = [Leg(accounts[key].name, accounts[key].unit, amount) for key, amount in sums.items()]
    _, kind, event_id, at_ns, used_at_ns, *_ = rows[0]
    return Transaction(kind, event_id, at_ns, used_at_ns, tuple(legs))
