"""The ledger's store: sealed transactions, and carrying out named postings on account balances.

Nothing is decided here: a posting comes complete from `core`. Order of locks, the same everywhere so that nobody waits
in a circle: the head of the seal stream, then bucket rows (whoever moves value in a bucket other than by granting),
then account rows in the order of their ids.
"""

import hashlib
from collections import Counter
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import asynccontextmanager

import msgspec

from tokenworks.base.database import Pool
from tokenworks.core.postings import Posting, normal_side
from tokenworks.ledger import seal
from tokenworks.ledger.arrays import flags, numbers, texts
from tokenworks.ledger.faults import EventConflict, LedgerFault, Overdrawn
from tokenworks.ledger.seal import Connection, SealedTable
from tokenworks.ledger.tables import SEALED

Key = tuple[str, str, str]  # legal entity, code, unit


class Posted(msgspec.Struct, frozen=True):
    """The posting of an event; `fresh` is false if it had been posted before."""

    id: int
    fresh: bool


class Account(msgspec.Struct, frozen=True):
    """A locked account row."""

    id: int
    balance: int


@asynccontextmanager
async def transaction(
    pool: Pool, stream: str, at_ns: int, sealed: tuple[SealedTable, ...] = SEALED
) -> AsyncGenerator[Connection]:
    """One transaction that ends with a seal of its stream. `sealed`: every table that rows may be added to.

    A room that adds rows to its own tables passes `ledger.tables.SEALED + its own`.
    """
    async with pool.connection() as conn:
        head = await seal.begin(conn, stream)
        yield conn
        await seal.end(conn, head, at_ns, sealed)


async def post(conn: Connection, posting: Posting, at_ns: int) -> int:
    """Carry out one posting inside a sealed transaction; gives its id, the first one's if the event was posted before.

    Raises `EventConflict` if the event was posted with another content and `Overdrawn` if an account would go below
    zero.
    """
    return (await post_all(conn, [posting], at_ns))[0].id


async def post_all(conn: Connection, postings: Sequence[Posting], at_ns: int) -> list[Posted]:
    """Carry out several postings with one net change per account.

    Rows are locked in the order of ids within one call only: a transaction that moves much calls this once.
    """
    if not postings:
        return []
    for posting in postings:
        _check(posting)
    posted = await _insert_postings(conn, postings, at_ns)
    fresh = [posting for posting, done in zip(postings, posted, strict=True) if done.fresh]
    if fresh:
        changes = _changes(fresh)
        accounts = await _lock_accounts(conn, sorted(changes))
        await _insert_transfers(conn, [done.id for done in posted if done.fresh], fresh, accounts)
        await _change_balances(conn, changes, accounts)
    return posted


def body_digest(posting: Posting) -> str:
    """What makes two postings of the same event the same."""
    return hashlib.sha256(msgspec.json.encode(posting, order="deterministic")).hexdigest()


def _check(posting: Posting) -> None:
    if not posting.transfers:
        raise LedgerFault(f"{posting.event_id} moves nothing")
    for transfer in posting.transfers:
        if transfer.amount <= 0 or transfer.debit == transfer.credit:
            raise LedgerFault(f"{posting.event_id}: {transfer} is no transfer")


async def _insert_postings(conn: Connection, postings: Sequence[Posting], at_ns: int) -> list[Posted]:
    digests = {posting.event_id: body_digest(posting) for posting in postings}
    if len(digests) < len(postings):
        raise LedgerFault("the same event twice in one call")
    cursor = await conn.execute(
        """
        INSERT INTO posting (kind, event_id, body_digest, legal_entity_id, at_ns, used_at_ns, detail)
        SELECT kind, event_id, body_digest, legal_entity_id, %s, used_at_ns, detail::jsonb
        FROM unnest(%s::text[], %s::text[], %s::text[], %s::text[], %s::bigint[], %s::text[])
            WITH ORDINALITY AS p (kind, event_id, body_digest, legal_entity_id, used_at_ns, detail, place)
        ORDER BY place
        ON CONFLICT (event_id) DO NOTHING
        RETURNING event_id, id
        """,
        (
            at_ns,
            texts(posting.kind for posting in postings),
            texts(posting.event_id for posting in postings),
            texts(digests[posting.event_id] for posting in postings),
            texts(posting.legal_entity_id for posting in postings),
            numbers(posting.used_at_ns for posting in postings),
            texts(msgspec.json.encode(posting.detail).decode() for posting in postings),
        ),
    )
    posted = {str(event): Posted(int(number), fresh=True) for event, number in await cursor.fetchall()}
    before = [event for event in digests if event not in posted]
    if before:
        posted |= await _posted_before(conn, {event: digests[event] for event in before})
    return [posted[posting.event_id] for posting in postings]


async def _posted_before(conn: Connection, digests: dict[str, str]) -> dict[str, Posted]:
    cursor = await conn.execute(
        "SELECT event_id, id, body_digest FROM posting WHERE event_id = ANY(%s)", (list(digests),)
    )
    posted: dict[str, Posted] = {}
    for event, number, digest in await cursor.fetchall():
        if digest != digests[event]:
            raise EventConflict(event)
        posted[str(event)] = Posted(int(number), fresh=False)
    return posted


async def _lock_accounts(conn: Connection, keys: list[Key]) -> dict[Key, Account]:
    missing = set(keys) - await _existing(conn, keys)
    if missing:
        await _create(conn, sorted(missing))
    cursor = await conn.execute(
        """
        SELECT legal_entity_id, code, unit, id, balance
        FROM account JOIN unnest(%s::text[], %s::text[], %s::text[]) AS k (legal_entity_id, code, unit)
            USING (legal_entity_id, code, unit)
        ORDER BY id FOR NO KEY UPDATE OF account
        """,
        _columns(keys),
    )
    return {(row[0], row[1], row[2]): Account(int(row[3]), int(row[4])) for row in await cursor.fetchall()}


async def _existing(conn: Connection, keys: list[Key]) -> set[Key]:
    cursor = await conn.execute(
        """
        SELECT legal_entity_id, code, unit
        FROM account JOIN unnest(%s::text[], %s::text[], %s::text[]) AS k (legal_entity_id, code, unit)
            USING (legal_entity_id, code, unit)
        """,
        _columns(keys),
    )
    return {(row[0], row[1], row[2]) for row in await cursor.fetchall()}


async def _create(conn: Connection, keys: list[Key]) -> None:
    """Add accounts that do not exist; another transaction may be adding the same ones."""
    await conn.execute(
        """
        INSERT INTO account (legal_entity_id, code, unit, debit_normal)
        SELECT * FROM unnest(%s::text[], %s::text[], %s::text[], %s::boolean[])
        ON CONFLICT (code, unit, legal_entity_id) DO NOTHING
        """,
        (*_columns(keys), flags(normal_side(code) == "debit" for _, code, _ in keys)),
    )


async def _insert_transfers(
    conn: Connection, ids: list[int], postings: Sequence[Posting], accounts: dict[Key, Account]
) -> None:
    rows = [
        (number, posting.legal_entity_id, transfer)
        for number, posting in zip(ids, postings, strict=True)
        for transfer in posting.transfers
    ]
    await conn.execute(
        """
        INSERT INTO transfer (posting_id, debit_account_id, credit_account_id, unit, amount)
        SELECT posting_id, debit_account_id, credit_account_id, unit, amount
        FROM unnest(%s::bigint[], %s::bigint[], %s::bigint[], %s::text[], %s::numeric[])
            WITH ORDINALITY AS t (posting_id, debit_account_id, credit_account_id, unit, amount, place)
        ORDER BY place
        """,
        (
            numbers(number for number, _, _ in rows),
            numbers(accounts[entity, transfer.debit, transfer.unit].id for _, entity, transfer in rows),
            numbers(accounts[entity, transfer.credit, transfer.unit].id for _, entity, transfer in rows),
            texts(transfer.unit for _, _, transfer in rows),
            numbers(transfer.amount for _, _, transfer in rows),
        ),
    )


async def _change_balances(conn: Connection, changes: Counter[Key], accounts: dict[Key, Account]) -> None:
    for key, change in changes.items():
        if accounts[key].balance + change < 0:
            raise Overdrawn(key[1])
    await conn.execute(
        """
        UPDATE account SET balance = balance + change
        FROM unnest(%s::bigint[], %s::numeric[]) AS c (account_id, change)
        WHERE id = account_id
        """,
        (numbers(accounts[key].id for key in changes), numbers(changes.values())),
    )


def _changes(postings: Iterable[Posting]) -> Counter[Key]:
    """The net change of each account touched, on its normal side."""
    changes: Counter[Key] = Counter()
    for posting in postings:
        for transfer in posting.transfers:
            debit_grows, credit_grows = normal_side(transfer.debit) == "debit", normal_side(transfer.credit) == "credit"
            debit = (posting.legal_entity_id, transfer.debit, transfer.unit)
            credit = (posting.legal_entity_id, transfer.credit, transfer.unit)
            changes[debit] += transfer.amount if debit_grows else -transfer.amount
            changes[credit] += transfer.amount if credit_grows else -transfer.amount
    return changes


def _columns(keys: list[Key]) -> tuple[str, str, str]:
    return texts(key[0] for key in keys), texts(key[1] for key in keys), texts(key[2] for key in keys)
