"""What the books say of a chaos run, read once everything is posted: each record, and sums that must agree."""

import asyncio
from collections import Counter
from pathlib import Path
from typing import LiteralString

import msgspec
import psycopg
from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from tokenworks.base import clock
from tokenworks.base.journal import list_journals

Connection = AsyncConnection[TupleRow]

_LOOK_EVERY_S = 0.1


class Posted(msgspec.Struct, frozen=True):
    """One usage record. `charged` was taken from the customer, `unproven` was booked to `loss/unproven` instead."""

    request_id: str
    billing_account_id: str
    ending: str
    basis: str
    tokens_input: int
    tokens_output: int
    charged: int
    unproven: int

    @property
    def tokens(self) -> int:
        """Both together; the scripted endpoints know no other classes."""
        return self.tokens_input + self.tokens_output


class Sums(msgspec.Struct, frozen=True, kw_only=True):
    """Sums over the whole ledger, in tokens, when nothing runs any more."""

    issued: int
    available: int
    leased: int
    spent: int
    unproven: int
    negative_balances: int
    leases_open: int


async def records(url: str) -> list[Posted]:
    """Every usage record with the sums of its charges."""
    async with await Connection.connect(url) as connection:
        cursor = await connection.execute(
            """
            SELECT r.request_id, r.billing_account_id, r.ending, r.basis,
                r.tokens_input + r.tokens_cached_input + r.tokens_cache_write, r.tokens_output + r.tokens_reasoning,
                (SELECT coalesce(sum(c.amount), 0) FROM unnest(r.charges) c WHERE c.proven),
                (SELECT coalesce(sum(c.amount), 0) FROM unnest(r.charges) c WHERE NOT c.proven)
            FROM usage_record r ORDER BY r.id
            """
        )
        return [Posted(*row[:4], *(int(number) for number in row[4:])) for row in await cursor.fetchall()]


async def sums(url: str) -> Sums:
    """The sums of the token book."""
    async with await Connection.connect(url) as connection:
        return Sums(
            issued=await _number(connection, _BALANCE, "^bucket/.*/issued$"),
            available=await _number(connection, _BALANCE, "^bucket/.*/available$"),
            leased=await _number(connection, _BALANCE, "^lease/"),
            spent=await _number(connection, _BALANCE, "^bucket/.*/spent$"),
            unproven=await _number(connection, _BALANCE, "^loss/unproven$"),
            negative_balances=await _number(connection, "SELECT count(*) FROM account WHERE balance < 0"),
            leases_open=await _number(connection, "SELECT count(*) FROM lease WHERE open"),
        )


async def settled(url: str, journals: Path, patience_ms: int) -> bool:
    """Wait until nothing is left to post; False if that takes longer than patience.

    Every request in the books is closed, and of the journals on disk only the youngest of each worker goes on: all
    others are final, so their successors are done with them.
    """
    give_up_ns, before = clock.boot_ns() + patience_ms * clock.MS, -1
    while clock.boot_ns() < give_up_ns:
        state = await _state(url)
        if state and state.waiting == 0 and _successors_are_done(journals, state.final):
            if state.openings == before:
                return True
            before = state.openings
        await asyncio.sleep(_LOOK_EVERY_S)
    return False


class _State(msgspec.Struct, frozen=True):
    openings: int
    waiting: int
    final: frozenset[str]


async def _state(url: str) -> _State | None:
    """What metering has; None while the database is away."""
    try:
        async with await Connection.connect(url) as connection:
            cursor = await connection.execute("SELECT id, openings, closings, final FROM journal")
            rows = await cursor.fetchall()
    except psycopg.OperationalError:
        return None
    opened, closed = sum(int(row[1]) for row in rows), sum(int(row[2]) for row in rows)
    return _State(opened, opened - closed, frozenset(str(row[0]) for row in rows if row[3]))


def _successors_are_done(journals: Path, final: frozenset[str]) -> bool:
    going_on = Counter(folder.parent.name for folder in list_journals(journals) if folder.name not in final)
    return max(going_on.values(), default=0) <= 1


_BALANCE = "SELECT coalesce(sum(balance), 0) FROM account WHERE unit = 'token' AND code ~ %s"


async def _number(connection: Connection, query: LiteralString, *values: str) -> int:
    row = await (await connection.execute(query, values)).fetchone()
    return int(row[0]) if row else 0
