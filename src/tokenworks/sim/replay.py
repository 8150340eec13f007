"""A history carried out again on PostgreSQL, with the same inputs and times, and compared with the store row by row.

The simulation believes its store only because of this. It is the one module of the room that knows a database.
"""

from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

import msgspec

from tokenworks.base.config import Settings
from tokenworks.base.database import Pool
from tokenworks.core.leasing import LeaseReply
from tokenworks.core.metering import Record
from tokenworks.core.purse import Charge
from tokenworks.ledger import buckets
from tokenworks.ledger.epoch import Epochs
from tokenworks.ledger.leases import LeaseDesk
from tokenworks.ledger.store import transaction
from tokenworks.meter import usage
from tokenworks.meter.posting import post_batch
from tokenworks.sim.commands import Begin, Command, Done, Expire, Grant, Reclaim, Reply, Sell, Settle, Ship, SiteShipped
from tokenworks.sim.state import State

_OFFER = "offer"
_RECORDS_MAX = 1_000_000


class Replay:
    """Carries out commands on a database that holds nothing yet."""

    def __init__(self, pool: Pool, settings: Settings) -> None:
        self._pool = pool
        self._desk = LeaseDesk(pool, settings)
        self._epochs = Epochs(pool, settings)

    async def differences(self, history: Sequence[Done], state: State) -> list[str]:
        """Everything in which the database is another than the store: replies first, then rows. Empty is good."""
        found: list[str] = []
        for number, done in enumerate(history):
            reply = _plain(await self._do(done.command))
            if reply != _plain(done.reply):
                found.append(f"command {number}, {type(done.command).__name__}: {reply}, not {_plain(done.reply)}")
        found += [text async for text in self._rows(state)]
        return found

    async def _do(self, command: Command) -> Reply:  # noqa: PLR0911 - one line for each command
        match command:
            case Sell():
                return await self._sell(command)
            case Grant():
                return tuple(await self._desk.grant(command.requests, command.tariffs, command.at_ns))
            case Ship():
                return (await post_batch(self._pool, command.request, command.at_ns)).reply
            case Reclaim():
                since_ns, shipping, final = command.silent_since_ns, command.shipping, command.final
                return await self._desk.reclaim_due(command.at_ns, since_ns, shipping, final)
            case Expire():
                return await buckets.expire_due(self._pool, command.at_ns)
            case Begin():
                return (await self._epochs.begin(command.at_ns, command.why)).epoch
            case SiteShipped():
                await self._epochs.site_shipped(command.epoch, command.site_id, command.at_ns)
                return 1
            case Settle():
                return int(await self._epochs.settle_due(command.at_ns, is_late=command.is_late) is not None)

    async def _sell(self, sale: Sell) -> int:
        async with transaction(self._pool, "shop", sale.at_ns) as conn:
            if sale.on_credit:
                await buckets.grant_credit(
                    conn,
                    agreement_id=sale.order_id,
                    bucket=sale.bucket,
                    granted=sale.granted,
                    currency=sale.currency,
                    net=sale.net,
                    tax=sale.tax,
                    offer_id=_OFFER,
                    at_ns=sale.at_ns,
                )
            else:
                await buckets.sell(
                    conn,
                    order_id=sale.order_id,
                    bucket=sale.bucket,
                    granted=sale.granted,
                    payer=sale.payer,
                    currency=sale.currency,
                    net=sale.net,
                    tax=sale.tax,
                    offer_id=_OFFER,
                    at_ns=sale.at_ns,
                )
        return 1

    async def _rows(self, state: State) -> AsyncIterator[str]:
        accounts = {(row[0], row[1], row[2]): int(row[3]) for row in await self._query(_ACCOUNTS)}
        for text in _compared("account", accounts, {key: held for key, held in state.accounts.items() if held}):
            yield text
        leases = {row[0]: (*row[1:6], int(row[6]), row[7]) for row in await self._query(_LEASES)}
        for text in _compared("lease", leases, dict(_leases(state))):
            yield text
        ends = {row[0]: (row[1], int(row[2]), row[3] and int(row[3])) for row in await self._query(_ENDS)}
        ended = {lease_id: (end.how, end.remainder, end.claimed) for lease_id, end in state.ends.items()}
        for text in _compared("end of lease", ends, ended):
            yield text
        journals = {row[0]: tuple(row[1:]) for row in await self._query(_JOURNALS)}
        cursors = {name: msgspec.structs.astuple(cursor) for name, cursor in state.journals.items()}
        for text in _compared("journal", journals, cursors):
            yield text
        async with self._pool.connection() as conn:
            posted = await usage.records(conn, limit=_RECORDS_MAX)
        records = {(record.journal_id, record.position): _posted(record) for record in posted}
        for text in _compared("record", records, {place: _record(each) for place, each in state.records.items()}):
            yield text

    async def _query(self, statement: str) -> list[tuple[Any, ...]]:
        async with self._pool.connection() as conn:
            return await (await conn.execute(statement.encode())).fetchall()


_ACCOUNTS = "SELECT legal_entity_id, code, unit, balance FROM account WHERE balance <> 0"
_LEASES = "SELECT id, worker, epoch, sequence, ordinal, bucket_id, amount, use_until_ns FROM lease"
_ENDS = "SELECT lease_id, how, remainder, claimed FROM lease_end"
_JOURNALS = "SELECT id, posted_through, shipments, openings, closings, final FROM journal"


def _plain(reply: Reply) -> object:
    """A reply without its sentences: those are for people."""
    if isinstance(reply, tuple):
        return tuple([_lease_reply(each) for each in reply])
    return reply


def _lease_reply(reply: LeaseReply) -> object:
    refusal = reply.refusal.code if reply.refusal else None
    return reply.leases, refusal, reply.elsewhere


def _compared(what: str, there: dict[Any, Any], here: dict[Any, Any]) -> Iterator[str]:
    for key in sorted(there.keys() | here.keys()):
        if there.get(key) != here.get(key):
            yield f"{what} {key}: {there.get(key)} on PostgreSQL, {here.get(key)} in the store"


def _leases(state: State) -> Iterator[tuple[int, tuple[object, ...]]]:
    for lease_id, row in state.leases.items():
        yield lease_id, (*row.name, row.ordinal, row.grant.bucket.id, row.grant.amount, row.use_until_ns)


def _record(record: Record) -> tuple[object, ...]:
    opening, closing = record.opening, record.closing
    lines = [_line(line.charge, line.proven, line.revenue) for line in record.lines]
    costs = [(attempt.supplier_id, attempt.cost) for attempt in closing.attempts]
    return opening.request_id, opening.output_max, closing.ending, closing.tokens, record.flags, lines, costs


def _posted(record: usage.UsageRecord) -> tuple[object, ...]:
    lines = [_line(line, line.proven, line.revenue) for line in record.charges]
    costs = [(attempt.supplier_id, attempt.cost) for attempt in record.attempts]
    return record.request_id, record.output_max, record.ending, record.tokens, record.flags, lines, costs


def _line(charge: Charge | usage.ChargeLine, proven: bool, revenue: int) -> tuple[object, ...]:
    return charge.lease_id, charge.bucket_id, charge.tariff, charge.tokens, charge.amount, proven, revenue
