"""The ledger's store: sealed transactions, and carrying out named postings on account balances.

Nothing is decided here: a posting comes complete from `core`. Order of locks, the same everywhere so that nobody waits
in a circle: the head of the seal stream, then bucket rows (whoever moves value in a bucket other than by granting),
then account rows in the order of their ids.
"""

import hashlib
from collections.abc import AsyncGenerator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from operator import itemgetter
from weakref import WeakKeyDictionary

import msgspec

from tokenworks.base import clock
from tokenworks.base.database import Pool
from tokenworks.core.postings import Posting, normal_side
from tokenworks.ledger import accounts, seal
from tokenworks.ledger.accounts import Change, Key
from tokenworks.ledger.arrays import numbers, texts
from tokenworks.ledger.copied import remembered
from tokenworks.ledger.faults import EventConflict, LedgerFault
from tokenworks.ledger.seal import Connection, SealedTable
from tokenworks.ledger.tables import SEALED, TRANSFER

# How many ids are taken from the sequence beyond those that are wanted, and for how long they are good: sums by hour
# read the transfers between the ids of postings that were written together.
_IDS_AHEAD = 64
_IDS_GOOD_NS = 5 * clock.SECOND


class _Ahead:
    """Ids that were taken from the sequence at a time and are not used yet."""

    def __init__(self) -> None:
        self.ids: list[int] = []
        self.since_ns = 0


_ahead: WeakKeyDictionary[Connection, _Ahead] = WeakKeyDictionary()


class Posted(msgspec.Struct, frozen=True):
    """The posting of an event; `fresh` is false if it had been posted before."""

    id: int
    fresh: bool


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
    posted, changes = await enter(conn, postings, at_ns)
    await accounts.change(conn, changes)
    return posted


async def ids_to_come(conn: Connection, count: int) -> list[int]:
    """Ids for postings that are yet to be decided: rows that name them can be written before them.

    They are taken from the database's sequence some at a time and kept with the connection for some seconds; what is
    not used is lost.
    """
    ahead, now_ns = _ahead.setdefault(conn, _Ahead()), clock.boot_ns()
    if now_ns - ahead.since_ns > _IDS_GOOD_NS:
        ahead.ids, ahead.since_ns = [], now_ns
    if len(ahead.ids) < count:
        cursor = await conn.execute(
            "SELECT nextval(pg_get_serial_sequence('posting', 'id')) FROM generate_series(1, %s)", (count + _IDS_AHEAD,)
        )
        ahead.ids += [int(row[0]) for row in await cursor.fetchall()]
    taken, ahead.ids = ahead.ids[:count], ahead.ids[count:]
    return taken


async def enter(
    conn: Connection, postings: Sequence[Posting], at_ns: int, ids: Sequence[int | None] | None = None
) -> tuple[list[Posted], list[Change]]:
    """Write postings and transfers. The caller hands the changes of balances to `accounts.change` before it ends.

    So whoever has more to write does that first, and others wait for its accounts only as long as they must. `ids`:
    of `ids_to_come`, for those postings that have one already.
    """
    if not postings:
        return [], []
    moves = _Moves(postings)
    posted = await _insert_postings(conn, postings, at_ns, ids or [None] * len(postings))
    fresh = [(done.id, posting) for done, posting in zip(posted, postings, strict=True) if done.fresh]
    if len(fresh) < len(postings):
        moves = _Moves([posting for _, posting in fresh])
    if fresh:
        places = await accounts.open_all(conn, moves.keys)
        await seal.copy(conn, TRANSFER, moves.lines([number for number, _ in fresh], places))
        return posted, moves.changes(places)
    return posted, []


def body_digest(posting: Posting) -> str:
    """What makes two postings of the same event the same."""
    return hashlib.sha256(msgspec.json.encode(posting, order="deterministic")).hexdigest()


async def _insert_postings(
    conn: Connection, postings: Sequence[Posting], at_ns: int, ids: Sequence[int | None]
) -> list[Posted]:
    digests = {posting.event_id: body_digest(posting) for posting in postings}
    if len(digests) < len(postings):
        raise LedgerFault("the same event twice in one call")
    cursor = await conn.execute(
        """
        INSERT INTO posting (id, kind, event_id, body_digest, legal_entity_id, at_ns, used_at_ns, detail)
        OVERRIDING SYSTEM VALUE
        SELECT coalesce(id, nextval(pg_get_serial_sequence('posting', 'id'))), kind, event_id, body_digest,
            legal_entity_id, %s, used_at_ns, detail::jsonb
        FROM (SELECT * FROM unnest(%s::bigint[], %s::text[], %s::text[], %s::text[], %s::text[], %s::bigint[],
                %s::text[])
            WITH ORDINALITY AS u (id, kind, event_id, body_digest, legal_entity_id, used_at_ns, detail, place)
            ORDER BY place) p
        ON CONFLICT (event_id) DO NOTHING
        RETURNING event_id, id
        """,
        (
            at_ns,
            list(ids),
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


class _Moves:
    """The transfers of postings, with each account's place among those touched instead of its names."""

    def __init__(self, postings: Iterable[Posting]) -> None:
        self._nets: list[int] = []  # debits less credits, by the place of the account
        self._legs: list[list[tuple[int, int, str, int]]] = []
        places: dict[Key, int] = {}
        for posting in postings:
            self._legs.append(self._read(posting, places))
        self.keys = list(places)

    def changes(self, ids: list[int]) -> list[Change]:
        """The net change of each account on its normal side, given their ids."""
        nets = zip(ids, self._nets, self.keys, strict=True)
        return [(number, net if normal_side(key[1]) == "debit" else -net, key) for number, net, key in nets]

    def lines(self, posting_ids: list[int], ids: list[int]) -> Iterator[str]:
        """The transfers' text, in the order of their postings' ids, as the seal has them."""
        for number, legs in sorted(zip(posting_ids, self._legs, strict=True), key=itemgetter(0)):
            for ordinal, (debit, credit, unit, amount) in enumerate(legs):
                yield f"{number}\t{ordinal}\t{ids[debit]}\t{ids[credit]}\t{remembered[unit]}\t{amount}"

    def _read(self, posting: Posting, places: dict[Key, int]) -> list[tuple[int, int, str, int]]:
        """The legs of one posting; one that is none is a fault."""
        if not posting.transfers:
            raise LedgerFault(f"{posting.event_id} moves nothing")
        entity, nets = posting.legal_entity_id, self._nets
        legs: list[tuple[int, int, str, int]] = []
        for transfer in posting.transfers:
            amount, unit = transfer.amount, transfer.unit
            if amount <= 0 or transfer.debit == transfer.credit:
                raise LedgerFault(f"{posting.event_id}: {transfer} is no transfer")
            debit = places.setdefault((entity, transfer.debit, unit), len(places))
            credit = places.setdefault((entity, transfer.credit, unit), len(places))
            while len(nets) < len(places):
                nets.append(0)
            nets[debit] += amount
            nets[credit] -= amount
            legs.append((debit, credit, unit, amount))
        return legs
