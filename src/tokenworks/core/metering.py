"""What a batch of journal entries means for the books: records, lease ends and one net posting per legal entity.

Pure: entries and the state they refer to go in, rows and postings come out; `meter` carries them out in one
transaction. Nothing is rated here: charges come final from the worker. What the ledger cannot confirm is never taken
from the customer: a charge on a lease that has ended, or is not this account's, goes to `loss/unproven`.

`core.named` goes through a batch before anything is known of the ledger. `Deciding` goes through it once more, record
by record, so that rows are on their way while the next are decided; batches of several journals may share one
`Standing`.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping

import msgspec

from tokenworks.core import postings
from tokenworks.core.journal import Closing, Entry, Extension, LeaseClose, LeaseReturn, LeaseTaken, Opening
from tokenworks.core.named import EntryFault, Named
from tokenworks.core.postings import Posting, Transfer
from tokenworks.core.purse import Charge
from tokenworks.core.standing import OpenLease, Registered, SoldBucket, Standing

UNPROVEN_FLAG = "unproven"

Accounts = tuple[str, str, str]  # debit, credit, unit


class Known(msgspec.Struct, frozen=True):
    """What the ledger knows of the things that a batch names. `closed`: positions of openings already closed."""

    leases: Mapping[int, OpenLease]
    buckets: Mapping[str, SoldBucket]
    openings: Mapping[int, Opening]
    closed: frozenset[int] = frozenset()

    def confirm(self, named: Named) -> None:
        """Raise `EntryFault` if an entry names no opening: before anything of its batch is decided."""
        for position in sorted(named.openings - self.openings.keys() - self.closed):
            raise EntryFault(f"an entry names no opening: there is none at {position}")


def moves(closing: Closing) -> bool:
    """Whether a posting books anything of this request: it charges something, or cost something."""
    return any(charge.amount for charge in closing.charges) or any(attempt.cost for attempt in closing.attempts)


class Line(msgspec.Struct, frozen=True, gc=False):
    """A charge with the revenue that it recognises; an unproven one takes nothing from anybody."""

    charge: Charge
    proven: bool
    revenue: int
    currency: str


class Record(msgspec.Struct, frozen=True, gc=False):
    """A request opened and closed. `position` is the opening's place in the journal and names the record."""

    position: int
    closing_position: int
    opening: Opening
    closing: Closing
    lines: tuple[Line, ...]
    flags: tuple[str, ...]


class LeaseEnd(msgspec.Struct, frozen=True, gc=False):
    """A lease given back: `remainder` goes back to the bucket; `claimed` is what the worker said was left.

    Of a lease that drew what it charged, the worker cannot know what was left.
    """

    lease_id: int
    legal_entity_id: str
    remainder: int
    claimed: int | None


class LeasePart(msgspec.Struct, frozen=True, gc=False):
    """A part of a lease given back: at most what the ledger has on it; `claimed` is what the worker said."""

    lease_id: int
    legal_entity_id: str
    amount: int
    claimed: int


class Grown(msgspec.Struct, frozen=True, gc=False):
    """A request of an earlier batch, still open, with the reservation it has since the entry at `at`."""

    position: int
    at: int
    opening: Opening


class Outcome(msgspec.Struct, frozen=True):
    """Everything to be written for a batch. `waiting` are openings without their closing, by position.

    `through` is how far the batch could be decided: before a closing that waits for what other journals give back.
    """

    opened: tuple[tuple[int, Opening], ...]
    waiting: tuple[tuple[int, Opening], ...]
    records: tuple[Record, ...]
    lease_ends: tuple[LeaseEnd, ...]
    postings: tuple[Posting, ...]
    repeats: int
    unproven: int
    through: int
    registered: tuple[Registered, ...] = ()
    grown: tuple[Grown, ...] = ()
    lease_parts: tuple[LeasePart, ...] = ()


class Batch(msgspec.Struct, frozen=True):
    """Whole entries with their positions, contiguous from one position to another of one journal."""

    journal_id: str
    from_position: int
    through_position: int
    at_ns: int
    entries: tuple[tuple[int, Entry], ...]


def decide(batch: Batch, known: Known, standing: Standing | None = None) -> Outcome:
    """Decide a whole batch at once."""
    deciding = Deciding(batch, known, standing or Standing(known.leases, known.buckets))
    for _ in deciding.records():
        pass
    return deciding.outcome()


class Deciding:
    """The records and sums of one batch while its entries are gone through, in their order.

    They were seen by `named`, and `known` confirms what they name.
    """

    def __init__(self, batch: Batch, known: Known, standing: Standing) -> None:
        self._batch = batch
        self._through = batch.through_position
        self._known = known
        self._standing = standing
        self._opened: dict[int, Opening] = {}
        self._closed = set(known.closed)
        self._records: list[Record] = []
        self._ends: list[LeaseEnd] = []
        self._parts: list[LeasePart] = []
        self._registered: list[Registered] = []
        self._grown: dict[int, Grown] = {}
        self._repeats = 0
        self._unproven = 0
        # Sums of what moves, by what tells it apart: texts of accounts are made once for each, at the end.
        self._spent: defaultdict[int, int] = defaultdict(int)
        self._earned: defaultdict[str, int] = defaultdict(int)
        self._taxed: defaultdict[str, int] = defaultdict(int)
        self._drawn: Counter[int] = Counter()
        self._lost: defaultdict[tuple[str, str], int] = defaultdict(int)
        self._costs: defaultdict[tuple[str, str, str], int] = defaultdict(int)
        # When the latest request was closed, by legal entity.
        self._used_at: defaultdict[str, int] = defaultdict(int)

    def records(self) -> Iterator[Record]:
        """Each as it is decided. They end before a closing that must wait for what other journals give back."""
        closed = self._closed
        for position, entry in self._batch.entries:
            if isinstance(entry, Closing):
                if entry.opening in closed:
                    self._repeats += 1
                    continue
                record = self._close(position, entry)
                if record is None:
                    self._through = position
                    return
                yield record
            elif isinstance(entry, Opening):
                self._opened[position] = entry
            elif isinstance(entry, LeaseClose):
                self._end_lease(entry)
            elif isinstance(entry, LeaseTaken):
                self._take_lease(entry)
            elif isinstance(entry, LeaseReturn):
                self._return_part(entry)
            elif isinstance(entry, Extension):
                self._extend(position, entry)
            # The head was checked at the door; checkpoints matter to the worker's successor only.

    def _close(self, position: int, closing: Closing) -> Record | None:
        """None, and nothing done, where it must wait for what other journals give back."""
        place = closing.opening
        opening = self._opened.get(place) or self._opening(position, place)
        if self._standing.drawing:
            drawn = self._standing.draw(closing.charges)
            if drawn is None:
                return None
            self._drawn.update(drawn)
        self._closed.add(place)
        if self._grown:
            self._grown.pop(place, None)
        unproven_before, flags = self._unproven, closing.flags
        lines = tuple([self._charge(opening, charge) for charge in closing.charges])
        if self._unproven > unproven_before:
            flags = (*flags, UNPROVEN_FLAG)
        entity, closed_at_ns = opening.legal_entity_id, closing.closed_at_ns
        for attempt in closing.attempts:
            self._costs[entity, attempt.supplier_id, attempt.currency] += attempt.cost
        self._used_at[entity] = max(self._used_at[entity], closed_at_ns)
        record = Record(place, position, opening, closing, lines, flags)
        self._records.append(record)
        return record

    def _take_lease(self, taken: LeaseTaken) -> None:
        """Most are known; one whose grant was lost is registered again."""
        registered = self._standing.register(taken)
        if registered is not None:
            self._registered.append(registered)

    def _end_lease(self, close: LeaseClose) -> None:
        """A lease that has ended already, reclaimed for example, is not given back a second time."""
        left = self._standing.end(close.lease_id)
        if left is not None:
            claimed = None if close.lease_id in self._standing.drawing else close.remainder
            self._ends.append(LeaseEnd(close.lease_id, self._entity_of(close.lease_id), left, claimed))

    def _return_part(self, part: LeaseReturn) -> None:
        """Of a lease that has ended nothing can be given back, of any no more than the ledger has on it."""
        given = self._standing.give(part.lease_id, part.amount)
        if given is not None:
            self._parts.append(LeasePart(part.lease_id, self._entity_of(part.lease_id), given, part.amount))

    def _extend(self, position: int, extension: Extension) -> None:
        """From now on the request has this reservation; one that is closed already stays as it is."""
        place = extension.opening
        if place in self._closed:
            return
        opening = msgspec.structs.replace(
            self._opening(position, place),
            input_max=extension.input_max,
            output_max=extension.output_max,
            reserved=extension.reserved,
        )
        if place in self._opened:
            self._opened[place] = opening
        else:
            self._grown[place] = Grown(place, position, opening)

    def outcome(self) -> Outcome:
        """Everything to be written, once all records were taken."""
        waiting = [(place, opening) for place, opening in self._opened.items() if place not in self._closed]
        return Outcome(
            opened=tuple(self._opened.items()),
            waiting=tuple(waiting),
            records=tuple(self._records),
            lease_ends=tuple(self._ends),
            postings=(*self._registrations(), *self._postings()),
            repeats=self._repeats,
            unproven=self._unproven,
            through=self._through,
            registered=tuple(self._registered),
            grown=tuple([self._grown[place] for place in sorted(self._grown)]),
            lease_parts=tuple(self._parts),
        )

    def _opening(self, position: int, place: int) -> Opening:
        grown = self._grown.get(place)
        opening = grown.opening if grown else self._opened.get(place) or self._known.openings.get(place)
        if opening is None:
            raise EntryFault(f"the entry at {position} names no opening: there is none at {place}")
        return opening

    def _entity_of(self, lease_id: int) -> str:
        return self._standing.buckets[self._standing.bucket_of[lease_id]].legal_entity_id

    def _charge(self, opening: Opening, charge: Charge) -> Line:
        amount = charge.amount
        held = self._standing.holdings.get(charge.lease_id)
        if held is None or not held.confirms(opening, charge):
            self._unproven += 1
            self._lost[opening.legal_entity_id, charge.unit] += amount
            return Line(charge, False, 0, "")
        held.left -= amount
        revenue, tax = held.use.earn(amount)
        # Texts of the ledger's: those of an entry have yet to be hashed.
        bucket_id = held.bucket_id
        self._spent[charge.lease_id] += amount
        self._earned[bucket_id] += revenue
        if tax:
            self._taxed[bucket_id] += tax
        return Line(charge, True, revenue, held.use.bucket.currency)

    def _registrations(self) -> Iterator[Posting]:
        for lost in self._registered:
            taken = lost.taken
            if lost.held:
                yield postings.lease_registered(
                    taken.lease_id, taken.bucket_id, lost.legal_entity_id, self._batch.at_ns, lost.unit, lost.held
                )

    def _postings(self) -> Iterator[Posting]:
        """One per legal entity that anything moved for. It is used when its latest record was closed."""
        batch, through = self._batch, self._through
        detail: dict[str, str | int] = {"journal": batch.journal_id, "from": batch.from_position, "through": through}
        sums: defaultdict[str, Counter[Accounts]] = defaultdict(Counter)
        for entity, accounts, amount in self._moved():
            if amount:
                sums[entity][accounts] += amount
        for entity in sorted(sums):
            transfers = tuple([Transfer(*accounts, amount) for accounts, amount in sorted(sums[entity].items())])
            event = f"journal/{batch.journal_id}/{through}/{entity}"
            yield Posting("usage_posted", event, entity, self._used_at[entity] or batch.at_ns, transfers, detail)

    def _moved(self) -> Iterator[tuple[str, Accounts, int]]:
        """What moved, with its legal entity: by lease, by bucket, and by whatever else tells the accounts apart."""
        buckets = self._standing.buckets
        for lease_id, amount in self._spent.items():
            bucket_id = self._standing.bucket_of[lease_id]
            bucket = buckets[bucket_id]
            source, target = postings.lease(lease_id), postings.spent(bucket_id)
            yield bucket.legal_entity_id, (source, target, bucket.unit), amount
        for lease_id, amount in self._drawn.items():
            bucket_id = self._standing.bucket_of[lease_id]
            source, target = postings.available(bucket_id), postings.lease(lease_id)
            yield buckets[bucket_id].legal_entity_id, (source, target, buckets[bucket_id].unit), amount
        for bucket_id, revenue in self._earned.items():
            bucket = buckets[bucket_id]
            source = postings.receivable(bucket.payer) if bucket.payer else postings.liability(bucket_id)
            yield bucket.legal_entity_id, (source, postings.REVENUE_TOKENS, bucket.currency), revenue
        for bucket_id, tax in self._taxed.items():
            bucket = buckets[bucket_id]
            source = postings.receivable(bucket.payer)
            yield bucket.legal_entity_id, (source, postings.TAX_OUTPUT, bucket.currency), tax
        for end in self._ends:
            bucket_id = self._standing.bucket_of[end.lease_id]
            source, target = postings.lease(end.lease_id), postings.available(bucket_id)
            yield end.legal_entity_id, (source, target, buckets[bucket_id].unit), end.remainder
        for part in self._parts:
            bucket_id = self._standing.bucket_of[part.lease_id]
            source, target = postings.lease(part.lease_id), postings.available(bucket_id)
            yield part.legal_entity_id, (source, target, buckets[bucket_id].unit), part.amount
        for (entity, unit), amount in self._lost.items():
            yield entity, (postings.LOSS_UNPROVEN, postings.UNPROVEN, unit), amount
        for (entity, supplier_id, currency), amount in self._costs.items():
            yield entity, (postings.cost(supplier_id), postings.payable(supplier_id), currency), amount
