"""A small business for tests of ledger and meter: buckets to sell, leases to ask for, journals to ship."""

from collections.abc import Sequence
from typing import Any

from psycopg import AsyncConnection, IsolationLevel

from tokenworks.base.config import Settings
from tokenworks.base.database import Pool
from tokenworks.base.journal_frames import frame
from tokenworks.core import journal
from tokenworks.core.amounts import MILLION
from tokenworks.core.bounds import Need
from tokenworks.core.bucket import Bucket
from tokenworks.core.corrections import Head as CorrectionHead
from tokenworks.core.corrections import Kind
from tokenworks.core.journal import Attempt, Closing, Entry, Extension, Head, Opening, Reserved
from tokenworks.core.leasing import Lease, LeaseReply, LeaseRequest
from tokenworks.core.purse import Charge
from tokenworks.core.tariff import Tariff, flat
from tokenworks.core.usage import NONE, Tokens
from tokenworks.core.wire import ShipReply, ShipRequest
from tokenworks.ledger import buckets, seal_check, verify, verify_corrections
from tokenworks.ledger.leases import LeaseDesk
from tokenworks.ledger.seal import SealedTable
from tokenworks.ledger.store import transaction
from tokenworks.ledger.tables import CORRECTIONS
from tokenworks.ledger.tables import SEALED as LEDGER_SEALED
from tokenworks.ledger.verify import Check
from tokenworks.meter import verify as meter_verify
from tokenworks.meter.posting import post_batch
from tokenworks.meter.tables import SEALED as METER_SEALED

ENTITY = "le"
SEALED: tuple[SealedTable, ...] = LEDGER_SEALED + METER_SEALED + CORRECTIONS
TARIFFS = {"plain": Tariff("plain", 1, "token", {"*/*": flat(MILLION)})}
SETTINGS = Settings(lease_use_ms=1_000, request_longest_ms=1_000, lease_grace_ms=1_000, lease_share_percent=100)
SECOND = 1_000_000_000
GRANTED = 10_000_000
NET, TAX = 9_339_622_642, 560_377_358


def bucket(name: str, account: str = "acc", *, until_s: int = 1_000, priority: int = 100) -> Bucket:
    return Bucket(name, account, ENTITY, "token", "plain", 0, until_s * SECOND, priority)


async def sell(pool: Pool, sold: Bucket, granted: int = GRANTED, net: int = NET, tax: int = TAX) -> int:
    async with transaction(pool, "shop", 1) as conn:
        return await buckets.sell(
            conn,
            order_id=f"order-{sold.id}",
            bucket=sold,
            granted=granted,
            payer="carrier/sandbox",
            currency="CNY",
            net=net,
            tax=tax,
            offer_id="offer",
            at_ns=1,
        )


async def lend(pool: Pool, lent: Bucket, granted: int = GRANTED, net: int = NET, tax: int = TAX) -> int:
    """A credit bucket, under an agreement of its own."""
    async with transaction(pool, "shop", 1) as conn:
        return await buckets.grant_credit(
            conn,
            agreement_id=f"order-{lent.id}",
            bucket=lent,
            granted=granted,
            currency="CNY",
            net=net,
            tax=tax,
            offer_id="offer",
            at_ns=1,
        )


def ask(
    sequence: int, tokens: int, account: str = "acc", *, least: int | None = None, worker: str = "gw-0", **more: Any
) -> LeaseRequest:
    """A request for this need; `least` is likely to be enough, too."""
    low = Need(tokens if least is None else least, 0)
    return LeaseRequest(worker, "e1", sequence, account, "m", Need(tokens, 0), low, Need(0, 0), low, **more)


async def grant(pool: Pool, request: LeaseRequest, now_ns: int = SECOND) -> LeaseReply:
    return (await LeaseDesk(pool, SETTINGS).grant([request], TARIFFS, now_ns))[0]


async def lease(pool: Pool, sequence: int, tokens: int, now_ns: int = SECOND) -> Lease:
    reply = await grant(pool, ask(sequence, tokens), now_ns)
    assert reply.refusal is None
    return reply.leases[0]


def charge(held: Lease, tokens: int, unit: str = "token") -> Charge:
    return Charge(held.lease_id, held.bucket.id, "plain@1", unit, Tokens(tokens), tokens)


def reserved(held: Sequence[Lease], amount: int | None) -> tuple[Reserved, ...]:
    return tuple(
        Reserved(one.lease_id, one.bucket.id, one.bucket.unit, one.amount if amount is None else amount) for one in held
    )


def head(name: str, kind: Kind, about: str, at_s: int = 12, used_at_ns: int = 9) -> CorrectionHead:
    """A correction of the account `acc`."""
    used = used_at_ns if kind == "usage_refunded" else at_s * SECOND
    return CorrectionHead(
        id=name, kind=kind, legal_entity_id=ENTITY, billing_account_id="acc", about=about, reason="asked for",
        reference="", used_at_ns=used, at_ns=at_s * SECOND,
    )  # fmt: skip


class Journal:
    """A worker's journal in memory, and how far it was shipped."""

    def __init__(self, name: str = "j1", worker: str = "gw-0", entity: str = ENTITY, key: str = "key") -> None:
        self.name, self.worker, self.entity, self.key = name, worker, entity, key
        self.data = b""
        self.shipped = 0
        self.requests = 0
        self.add(Head(name, worker, 1))

    def add(self, entry: Entry) -> int:
        position = len(self.data)
        self.data += frame(journal.encode(entry))
        return position

    def open(self, *held: Lease, account: str = "acc", amount: int | None = None) -> int:
        """A request that reserves so much of each lease, or all that it was granted with."""
        self.requests += 1
        name = f"req-{self.name}-{self.requests}"
        parts = reserved(held, amount)
        return self.add(Opening(name, 5, self.entity, account, self.key, "m", True, GRANTED, GRANTED, parts))

    def extend(self, opening: int, *held: Lease, amount: int | None = None) -> int:
        """From now on the request reserves this instead."""
        return self.add(Extension(opening, GRANTED, GRANTED + self.requests, reserved(held, amount)))

    def close(self, opening: int, *charges: Charge, cost: int = 3, reported: bool = True) -> int:
        tokens = sum((one.tokens for one in charges), NONE)
        attempt = Attempt("ep", "sup", "buy@1", "CNY", tokens, cost, "finished", 1, 2, 3)
        both = (tokens, tokens if reported else None)
        return self.add(Closing(opening, 9, "finished", "reported", tokens, *both, ("odd",), charges, (attempt,), 2))

    def rest(self, *, final: bool = False) -> ShipRequest:
        return ShipRequest(self.name, self.worker, self.shipped, self.data[self.shipped :], final)

    async def ship(self, pool: Pool, now_ns: int = SECOND, *, final: bool = False) -> ShipReply:
        reply = (await post_batch(pool, self.rest(final=final), now_ns)).reply
        self.shipped = max(self.shipped, reply.posted_through)
        return reply


async def used_journals(pool: Pool, count: int) -> list[Journal]:
    """Journals with a request of 10 tokens each, not shipped."""
    await sell(pool, bucket("b"))
    held = await lease(pool, 1, 1_000)
    journals = [Journal(f"j{number}") for number in range(count)]
    for each in journals:
        each.close(each.open(held), charge(held, 10))
    return journals


async def verified(conn: AsyncConnection, sealed: tuple[SealedTable, ...] = SEALED) -> list[Check]:
    return [
        *await verify.checks(conn),
        *await verify_corrections.checks(conn),
        *await meter_verify.checks(conn),
        *await seal_check.seal_checks(conn, sealed),
    ]


async def faults(pool: Pool) -> list[Check]:
    """The checks that are not fine."""
    async with pool.connection() as conn:
        await conn.set_isolation_level(IsolationLevel.REPEATABLE_READ)
        await conn.set_read_only(True)
        try:
            return [check for check in await verified(conn) if not check.ok]
        finally:
            await conn.rollback()
            await conn.set_isolation_level(None)
            await conn.set_read_only(None)


async def balances(pool: Pool) -> dict[str, int]:
    """Every account that is not at zero."""
    async with pool.connection() as conn:
        rows = await (await conn.execute("SELECT code, balance FROM account WHERE balance <> 0")).fetchall()
        return {str(code): int(balance) for code, balance in rows}
