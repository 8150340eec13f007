"""The books as the live page shows them: read in one snapshot of the database, and the feed's events as records.

Nothing is computed here that another room answers for: balances and accounts are the ledger's, records metering's, the
open period and the margin the shop's. Only the time of a posting is looked up directly, because no room lists postings.
"""

from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager

import msgspec
import psycopg

from tokenworks.base import clock
from tokenworks.base.database import Pool
from tokenworks.console.context import BooksUnreadable
from tokenworks.console.view import (
    Amount,
    Bill,
    BillLine,
    Bucket,
    Charge,
    Check,
    Customer,
    Margin,
    Operator,
    Record,
    State,
    Supplier,
    Tokens,
    Verification,
    amount,
)
from tokenworks.core import usage
from tokenworks.core.commands import CommandRefused
from tokenworks.core.postings import payable
from tokenworks.ledger import balance, verify
from tokenworks.ledger.balance import BucketBalance
from tokenworks.ledger.seal import Connection
from tokenworks.meter.feed import Charged, Event, Feed
from tokenworks.meter.usage import ChargeLine, UsageRecord, records
from tokenworks.shop import margin, offers, parties, period
from tokenworks.supply import suppliers

RECORDS_SHOWN = 12
SUPPLIERS_SHOWN = 6


def reader(pool: Pool, customer_id: str, wall_ns: Callable[[], int]) -> Callable[[], Awaitable[State]]:
    """What `ConsoleContext.read` is made of: the page's state for one customer."""

    async def read() -> State:
        async with _snapshot(pool) as connection:
            return await _state(connection, customer_id, wall_ns())

    return read


def verifier(
    pool: Pool,
    checks: tuple[Callable[[Connection], Awaitable[list[verify.Check]]], ...],
    wall_ns: Callable[[], int],
    boot_ns: Callable[[], int],
) -> Callable[[], Awaitable[Verification]]:
    """What `ConsoleContext.verify` is made of. `checks` are those of all rooms, run on one snapshot."""

    async def verify_all() -> Verification:
        started_ns = boot_ns()
        async with _snapshot(pool) as connection:
            held = [each for check in checks for each in await check(connection)]
        took_ms = (boot_ns() - started_ns) // clock.MS
        found = tuple(Check(each.name, each.ok, each.detail) for each in held)
        return Verification(all(each.ok for each in found), found, took_ms, clock.iso(wall_ns()))

    return verify_all


def happenings(feed: Feed, billing_account_id: str) -> Callable[[], AsyncIterator[Record]]:
    """What `ConsoleContext.happenings` is made of: one account's events as records."""

    async def follow() -> AsyncGenerator[Record]:
        with feed.subscribe() as events:
            async for event in events:
                if event.billing_account_id == billing_account_id:
                    yield happened(event)

    return follow


def happened(event: Event) -> Record:
    """A record at the stage that the event tells of."""
    opened = Record(
        request_id=event.request_id,
        stage=event.kind,
        model=event.model,
        opened_at=clock.iso(event.opened_at_ns),
        reserved=_amounts(event.reserved),
    )
    if event.kind == "opened":
        return opened
    return msgspec.structs.replace(
        opened,
        tokens=_tokens(event.tokens),
        basis=event.basis,
        ending=event.ending,
        flags=event.flags,
        charges=_charges(event.charges),
        costs=_amounts(event.cost),
        first_token_ms=_first_token_ms(event.first_token_after_ns),
        duration_ms=event.duration_ns // clock.MS,
        posted_ms=_since(event.opened_at_ns, event.at_ns) if event.kind == "posted" else None,
        posting_id=event.posting_id or None,
    )


@asynccontextmanager
async def _snapshot(pool: Pool) -> AsyncGenerator[Connection]:
    """One snapshot, read-only. Whatever keeps the books from being shown becomes one sentence."""
    try:
        async with pool.connection() as connection:
            await connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            yield connection
    except psycopg.Error as fault:
        first_line = str(fault).strip().partition("\n")[0]
        raise BooksUnreadable(f"The database does not answer: {first_line}.") from fault
    except (CommandRefused, period.BooksDiffer) as fault:
        raise BooksUnreadable(str(fault)) from fault


async def _state(connection: Connection, customer_id: str, now_ns: int) -> State:
    customer = await parties.customer(connection, customer_id)
    entity = await parties.legal_entity(connection, customer.legal_entity_id)
    account_id = customer.billing_account_id
    return State(
        operator=Operator(entity.name),
        customer=Customer(customer.id, customer.name, account_id),
        wallet=await _wallet(connection, account_id),
        bill=_bill(await period.read(connection, customer.id, now_ns)),
        suppliers=await _suppliers(connection),
        margins=tuple(_margin(each) for each in await margin.of_business(connection)),
        records=await _records(connection, account_id),
    )


async def _wallet(connection: Connection, billing_account_id: str) -> tuple[Bucket, ...]:
    held = await balance.wallet(connection, billing_account_id)
    names = {offer_id: (await offers.get(connection, offer_id)).name for offer_id in {each.offer_id for each in held}}
    return tuple(_bucket(each, names[each.offer_id]) for each in held)


def _bucket(held: BucketBalance, offer_name: str) -> Bucket:
    return Bucket(
        id=held.bucket.id,
        offer=offer_name,
        unit=held.bucket.unit,
        granted=str(held.issued),
        available=str(held.available),
        leased=str(held.leased),
        spent=str(held.spent),
        expired=str(held.expired),
        withdrawn=str(held.withdrawn),
        valid_to=clock.iso(held.bucket.valid_to_ns),
    )


def _bill(open_period: period.Period) -> Bill:
    totals: Counter[str] = Counter()
    bought: Counter[str] = Counter()
    for purchase in open_period.purchases:
        totals[purchase.name] += purchase.total
        bought[purchase.name] += 1
    for line in open_period.on_credit:
        totals[f"{line.name} (used)"] += line.total
    currency = open_period.currency
    return Bill(
        period_from=clock.iso(open_period.from_ns),
        lines=tuple(
            BillLine(f"{bought[name]} × {name}" if bought[name] > 1 else name, amount(total, currency))
            for name, total in totals.items()
        ),
        net=amount(open_period.net, currency),
        tax=amount(open_period.tax, currency),
        total=amount(open_period.total, currency),
        tokens=sum(line.tokens.total for line in open_period.usage),
    )


async def _suppliers(connection: Connection) -> tuple[Supplier, ...]:
    """Suppliers in the order of their ids, with what all legal entities together owe them."""
    owed: Counter[tuple[str, str]] = Counter()
    for account in await balance.accounts(connection, payable("")):
        owed[account.code, account.unit] += account.balance
    listed = await suppliers.listed(connection, SUPPLIERS_SHOWN, "")
    return tuple(
        Supplier(each.id, each.name, amount(owed[payable(each.id), each.currency], each.currency)) for each in listed
    )


def _margin(each: margin.Margin) -> Margin:
    currency = each.currency
    return Margin(amount(each.revenue, currency), amount(each.cost, currency), amount(each.margin, currency))


async def _records(connection: Connection, billing_account_id: str) -> tuple[Record, ...]:
    found = await records(connection, billing_account_id, limit=RECORDS_SHOWN)
    posted_at = await _posted_at(connection, [each.posting_id for each in found if each.posting_id is not None])
    return tuple(_record(each, posted_at.get(each.posting_id or 0)) for each in found)


async def _posted_at(connection: Connection, posting_ids: list[int]) -> dict[int, int]:
    cursor = await connection.execute("SELECT id, at_ns FROM posting WHERE id = ANY(%s)", (posting_ids,))
    return {int(row[0]): int(row[1]) for row in await cursor.fetchall()}


def _record(found: UsageRecord, posted_at_ns: int | None) -> Record:
    reserved: Counter[str] = Counter()
    for part in found.reserved:
        reserved[part.unit] += part.amount
    cost: Counter[str] = Counter()
    for attempt in found.attempts:
        cost[attempt.currency] += attempt.cost
    return Record(
        request_id=found.request_id,
        stage="posted",
        model=found.model,
        opened_at=clock.iso(found.opened_at_ns),
        reserved=_amounts(reserved),
        tokens=_tokens(found.tokens),
        basis=found.basis,
        ending=found.ending,
        flags=found.flags,
        charges=_charges(found.charges),
        costs=_amounts(cost),
        first_token_ms=_first_token_ms(found.first_token_after_ns),
        duration_ms=_since(found.opened_at_ns, found.closed_at_ns),
        posted_ms=_since(found.opened_at_ns, posted_at_ns) if posted_at_ns else None,
        posting_id=found.posting_id,
    )


def _amounts(by_unit: dict[str, int]) -> tuple[Amount, ...]:
    return tuple(amount(parts, unit) for unit, parts in sorted(by_unit.items()) if parts)


def _charges(lines: Iterable[Charged | ChargeLine]) -> tuple[Charge, ...]:
    """What the customer paid: a line whose lease had ended took nothing from a bucket."""
    return tuple(Charge(line.bucket_id, line.tariff, amount(line.amount, line.unit)) for line in lines if line.proven)


def _tokens(tokens: usage.Tokens) -> Tokens:
    return Tokens(*tokens.each())


def _first_token_ms(after_ns: int) -> int | None:
    """Zero means that no token was seen."""
    return after_ns // clock.MS if after_ns else None


def _since(opened_at_ns: int, at_ns: int) -> int:
    return (at_ns - opened_at_ns) // clock.MS
