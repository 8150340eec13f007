"""What a batch of journal entries means for the books: records, lease ends and one net posting per legal entity.

Pure: entries and the state they refer to go in, rows and postings come out; `meter` carries them out in one
transaction. Nothing is rated here: charges come final from the worker. What the ledger cannot confirm is never taken
from the customer: a charge on a lease that has ended, or is not this account's, goes to `loss/unproven`.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping

import msgspec

from tokenworks.core import postings
from tokenworks.core.journal import Attempt, Closing, Entry, Head, LeaseClose, Opening
from tokenworks.core.postings import Posting, Transfer
from tokenworks.core.purse import Charge
from tokenworks.core.sales import owed, recognised

UNPROVEN_FLAG = "unproven"


class EntryFault(Exception):
    """Entries that no correct worker writes; the whole batch is refused, the text says why."""


class OpenLease(msgspec.Struct, frozen=True):
    """A lease that has not ended; `left` is what the ledger has on it."""

    bucket_id: str
    left: int


class SoldBucket(msgspec.Struct, frozen=True):
    """A bucket's owner and price; `consumed` is what was spent or expired so far.

    Of a credit bucket `payer` says who owes for use, `net` and `tax` are of the whole limit, and `consumed` is what was
    spent: what expires of it was never owed.
    """

    legal_entity_id: str
    billing_account_id: str
    unit: str
    currency: str
    net: int
    granted: int
    consumed: int
    tax: int = 0
    payer: str = ""


class Known(msgspec.Struct, frozen=True):
    """What the ledger knows of the things that a batch names. `closed`: positions of openings already closed."""

    leases: Mapping[int, OpenLease]
    buckets: Mapping[str, SoldBucket]
    openings: Mapping[int, Opening]
    closed: frozenset[int] = frozenset()


class Named(msgspec.Struct, frozen=True):
    """What a batch names and the ledger must look up: leases, and openings of earlier batches."""

    leases: frozenset[int]
    openings: frozenset[int]


class Line(msgspec.Struct, frozen=True):
    """A charge with the revenue that it recognises; an unproven one takes nothing from anybody."""

    charge: Charge
    proven: bool
    revenue: int
    currency: str


class Record(msgspec.Struct, frozen=True):
    """A request opened and closed. `position` is the opening's place in the journal and names the record."""

    position: int
    closing_position: int
    opening: Opening
    closing: Closing
    lines: tuple[Line, ...]
    flags: tuple[str, ...]


class LeaseEnd(msgspec.Struct, frozen=True):
    """A lease given back: `remainder` goes back to the bucket; `claimed` is what the worker said was left."""

    lease_id: int
    legal_entity_id: str
    remainder: int
    claimed: int


class Outcome(msgspec.Struct, frozen=True):
    """Everything to be written for a batch. `waiting` are openings without their closing, by position."""

    opened: tuple[tuple[int, Opening], ...]
    waiting: tuple[tuple[int, Opening], ...]
    records: tuple[Record, ...]
    lease_ends: tuple[LeaseEnd, ...]
    postings: tuple[Posting, ...]
    repeats: int
    unproven: int


class Batch(msgspec.Struct, frozen=True):
    """Whole entries with their positions, contiguous from one position to another of one journal."""

    journal_id: str
    from_position: int
    through_position: int
    at_ns: int
    entries: tuple[tuple[int, Entry], ...]


def named(entries: Iterable[tuple[int, Entry]]) -> Named:
    """What to look up before deciding."""
    leases: set[int] = set()
    opened: set[int] = set()
    closed: set[int] = set()
    for position, entry in entries:
        if isinstance(entry, Closing):
            closed.add(entry.opening)
            leases.update(charge.lease_id for charge in entry.charges)
        elif isinstance(entry, Opening):
            opened.add(position)
        elif isinstance(entry, LeaseClose):
            leases.add(entry.lease_id)
    return Named(frozenset(leases), frozenset(closed - opened))


def decide(batch: Batch, known: Known) -> Outcome:
    """Go through the entries in their order; raises `EntryFault` for what no correct worker writes."""
    sheet = _Sheet(known)
    for position, entry in batch.entries:
        match entry:
            case Opening():
                sheet.open(position, entry)
            case Closing():
                sheet.close(position, entry)
            case LeaseClose():
                sheet.end_lease(entry)
            case Head() if position > 0:
                raise EntryFault(f"a second head at {position}")
            case _:
                pass  # the first head was checked at the door; checkpoints matter to the worker's successor only
    return sheet.outcome(batch)


class _Sheet:
    """The state of leases, buckets and sums while the entries of one batch are gone through."""

    def __init__(self, known: Known) -> None:
        self._known = known
        self._left = {lease_id: lease.left for lease_id, lease in known.leases.items()}
        self._consumed = {bucket_id: bucket.consumed for bucket_id, bucket in known.buckets.items()}
        self._sums: defaultdict[str, Counter[tuple[str, str, str]]] = defaultdict(Counter)
        self._opened: dict[int, Opening] = {}
        self._closed = set(known.closed)
        self._records: list[Record] = []
        self._ends: list[LeaseEnd] = []
        self._repeats = 0
        self._unproven = 0

    def open(self, position: int, opening: Opening) -> None:
        self._opened[position] = opening

    def close(self, position: int, closing: Closing) -> None:
        if closing.opening in self._closed:
            self._repeats += 1
            return
        opening = self._opened.get(closing.opening) or self._known.openings.get(closing.opening)
        if opening is None:
            raise EntryFault(f"the closing at {position} names no opening: there is none at {closing.opening}")
        self._closed.add(closing.opening)
        lines = tuple([self._charge(position, opening, charge) for charge in closing.charges])
        for attempt in closing.attempts:
            self._cost(position, opening, attempt)
        flags = closing.flags if all(line.proven for line in lines) else (*closing.flags, UNPROVEN_FLAG)
        self._records.append(Record(closing.opening, position, opening, closing, lines, flags))

    def end_lease(self, close: LeaseClose) -> None:
        """A lease that has ended already, reclaimed for example, is not given back a second time."""
        left = self._left.pop(close.lease_id, None)
        if left is None:
            return
        bucket_id = self._known.leases[close.lease_id].bucket_id
        bucket = self._known.buckets[bucket_id]
        source, target = postings.lease(close.lease_id), postings.available(bucket_id)
        self._sums[bucket.legal_entity_id][source, target, bucket.unit] += left
        self._ends.append(LeaseEnd(close.lease_id, bucket.legal_entity_id, left, close.remainder))

    def outcome(self, batch: Batch) -> Outcome:
        waiting = [(place, opening) for place, opening in self._opened.items() if place not in self._closed]
        return Outcome(
            opened=tuple(self._opened.items()),
            waiting=tuple(waiting),
            records=tuple(self._records),
            lease_ends=tuple(self._ends),
            postings=tuple(self._postings(batch)),
            repeats=self._repeats,
            unproven=self._unproven,
        )

    def _charge(self, position: int, opening: Opening, charge: Charge) -> Line:
        if charge.amount < 0 or min(charge.tokens.each()) < 0:
            raise EntryFault(f"the closing at {position} has a negative charge")
        sums = self._sums[opening.legal_entity_id]
        bucket = self._charged_bucket(opening, charge)
        if bucket is None:
            self._unproven += 1
            sums[postings.LOSS_UNPROVEN, postings.UNPROVEN, charge.unit] += charge.amount
            return Line(charge, proven=False, revenue=0, currency="")
        self._left[charge.lease_id] -= charge.amount
        sums[postings.lease(charge.lease_id), postings.spent(charge.bucket_id), charge.unit] += charge.amount
        revenue = self._recognise(sums, charge.bucket_id, bucket, charge.amount)
        return Line(charge, proven=True, revenue=revenue, currency=bucket.currency)

    def _charged_bucket(self, opening: Opening, charge: Charge) -> SoldBucket | None:
        """The bucket, if the ledger can confirm that this account leased it and that the lease still holds enough."""
        left = self._left.get(charge.lease_id)
        if left is None or left < charge.amount or self._known.leases[charge.lease_id].bucket_id != charge.bucket_id:
            return None
        bucket = self._known.buckets[charge.bucket_id]
        owner = (bucket.legal_entity_id, bucket.billing_account_id, bucket.unit)
        return bucket if owner == (opening.legal_entity_id, opening.billing_account_id, charge.unit) else None

    def _recognise(self, sums: Counter[tuple[str, str, str]], bucket_id: str, bucket: SoldBucket, amount: int) -> int:
        """The revenue of spending this; of a credit bucket its payer owes it from now on, and the tax on it."""
        before = self._consumed[bucket_id]
        after = self._consumed[bucket_id] = before + amount
        if not bucket.payer:
            revenue = recognised(bucket.net, after, bucket.granted) - recognised(bucket.net, before, bucket.granted)
            sums[postings.liability(bucket_id), postings.REVENUE_TOKENS, bucket.currency] += revenue
            return revenue
        net_before, tax_before = owed(bucket.net, bucket.tax, before, bucket.granted)
        net, tax = owed(bucket.net, bucket.tax, after, bucket.granted)
        receivable = postings.receivable(bucket.payer)
        sums[receivable, postings.REVENUE_TOKENS, bucket.currency] += net - net_before
        sums[receivable, postings.TAX_OUTPUT, bucket.currency] += tax - tax_before
        return net - net_before

    def _cost(self, position: int, opening: Opening, attempt: Attempt) -> None:
        if attempt.cost < 0:
            raise EntryFault(f"the closing at {position} has a negative cost")
        key = (postings.cost(attempt.supplier_id), postings.payable(attempt.supplier_id), attempt.currency)
        self._sums[opening.legal_entity_id][key] += attempt.cost

    def _postings(self, batch: Batch) -> Iterable[Posting]:
        """One per legal entity that anything moved for. It is used when its latest record was closed."""
        used_at: dict[str, int] = {}
        for record in self._records:
            entity = record.opening.legal_entity_id
            used_at[entity] = max(used_at.get(entity, 0), record.closing.closed_at_ns)
        detail: dict[str, str | int] = {
            "journal": batch.journal_id,
            "from": batch.from_position,
            "through": batch.through_position,
        }
        for entity in sorted(self._sums):
            transfers = tuple(Transfer(*key, amount) for key, amount in sorted(self._sums[entity].items()) if amount)
            if transfers:
                event = f"journal/{batch.journal_id}/{batch.through_position}/{entity}"
                yield Posting("usage_posted", event, entity, used_at.get(entity, batch.at_ns), transfers, detail)
