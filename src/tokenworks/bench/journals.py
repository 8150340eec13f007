"""The journals of a measurement of metering: written by the real writer, entry by entry as a gateway worker does.

Each request has its opening, and later its closing, with some others under way between them; customers are drawn by
Zipf's law, and every charge is on a lease that the ledger has granted.
"""

from collections import deque
from collections.abc import Sequence
from pathlib import Path

import msgspec

from tokenworks.base import clock, ids
from tokenworks.base.config import Settings
from tokenworks.base.database import Pool
from tokenworks.base.journal import JournalFull, JournalWriter
from tokenworks.bench.endpoint import MODEL
from tokenworks.bench.load import by_zipf
from tokenworks.core import journal
from tokenworks.core.bounds import Need
from tokenworks.core.journal import Attempt, Closing, Head, Opening, Reserved
from tokenworks.core.leasing import Lease, LeaseRequest
from tokenworks.core.purse import Charge
from tokenworks.core.tariff import Tariff
from tokenworks.core.usage import Tokens
from tokenworks.ledger.leases import LeaseDesk

ENDPOINTS = 4
UNDER_WAY = 32
LEASED = 10_000_000
"""Tokens on each lease; what a measurement uses of one is far less."""

_ASKED_AT_ONCE = 250
_CLOSING_BYTES_MAX = 1_024
_FLUSHED_AT_ONCE = 64
_TOKENS = Tokens(input=48, output=64)
_INPUT_MAX, _OUTPUT_MAX = 64, 128
_COST = 52_800
_USE_MS = 24 * 60 * 60 * 1_000


class Customer(msgspec.Struct, frozen=True):
    """Whose request it is, and the lease it is charged to."""

    legal_entity_id: str
    billing_account_id: str
    key_id: str
    lease: Lease


async def lease_all(pool: Pool, settings: Settings, tariffs: dict[str, Tariff]) -> list[Customer]:
    """A lease for every key of the business, as a worker would ask for it."""
    desk = LeaseDesk(
        pool,
        msgspec.structs.replace(
            settings, lease_use_ms=_USE_MS, lease_share_percent=100, lease_cap_worker="", lease_cap_account=""
        ),
    )
    async with pool.connection() as connection:
        cursor = await connection.execute("SELECT legal_entity_id, billing_account_id, id FROM access_key ORDER BY id")
        owners = [(str(row[0]), str(row[1]), str(row[2])) for row in await cursor.fetchall()]
    epoch = ids.new("jrn")
    customers: list[Customer] = []
    for first in range(0, len(owners), _ASKED_AT_ONCE):
        asking = owners[first : first + _ASKED_AT_ONCE]
        need, nothing = Need(LEASED, 0), Need(0, 0)
        requests = [
            LeaseRequest("bench-0", epoch, first + place, account, MODEL, need, need, nothing, need)
            for place, (_, account, _) in enumerate(asking, 1)
        ]
        replies = await desk.grant(requests, tariffs, clock.wall_ns())
        customers += [Customer(*owner, reply.leases[0]) for owner, reply in zip(asking, replies, strict=True)]
    return customers


def write(folder: Path, settings: Settings, customers: Sequence[Customer], draws: Sequence[int]) -> int:
    """A whole journal of one request for each draw of a customer; gives where it ends."""
    writer = JournalWriter.create(folder, settings.journal_segment_bytes)
    try:
        writer.append(journal.encode(Head(folder.name, folder.parent.name, clock.wall_ns())))
        open_requests: deque[tuple[int, Opening, Customer]] = deque()
        for number, draw in enumerate(draws):
            opening = _opening(f"req_{folder.name[4:]}-{number:x}", customers[draw])
            position = writer.append_opening(journal.encode(opening), _CLOSING_BYTES_MAX)
            if isinstance(position, JournalFull):
                raise OSError(position.reason)
            open_requests.append((position, opening, customers[draw]))
            if len(open_requests) > UNDER_WAY:
                _close(writer, *open_requests.popleft(), endpoint=number % ENDPOINTS)
            if number % _FLUSHED_AT_ONCE == 0:
                writer.flush()
        while open_requests:
            _close(writer, *open_requests.popleft(), endpoint=0)
        writer.flush()
        return writer.written
    finally:
        writer.close()


def draws_of(customers: int, records: int, journals: int) -> list[list[int]]:
    """Who asks, journal by journal."""
    drawn = by_zipf(customers, records)
    return [drawn[first::journals] for first in range(journals)]


def _opening(request_id: str, customer: Customer) -> Opening:
    reserved = Reserved(customer.lease.lease_id, customer.lease.bucket.id, customer.lease.bucket.unit, 192)
    owner = (customer.legal_entity_id, customer.billing_account_id, customer.key_id)
    return Opening(request_id, clock.wall_ns(), *owner, MODEL, False, _INPUT_MAX, _OUTPUT_MAX, (reserved,))


def _close(writer: JournalWriter, position: int, opening: Opening, customer: Customer, *, endpoint: int) -> None:
    lease, name = customer.lease, f"bench-{endpoint + 1}"
    charge = Charge(
        lease.lease_id, lease.bucket.id, f"{lease.bucket.tariff_id}@1", lease.bucket.unit, _TOKENS, _TOKENS.total
    )
    attempt = Attempt(name, "bench", f"{name}@1", "CNY", _TOKENS, _COST, "finished", 90_000, 700_000, 1_100_000)
    counted = Tokens(input=45, output=64)
    usage = ("finished", "reported", _TOKENS, counted, _TOKENS)
    closed_at_ns = opening.opened_at_ns + 1_200_000
    closing = Closing(position, closed_at_ns, *usage, (), (charge,), (attempt,), 700_000)
    writer.append_closing(journal.encode(closing), position)
