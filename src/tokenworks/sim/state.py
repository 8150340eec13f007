"""The ledger's rows on plain dicts: values never change in place, so a copy of the dicts is the ledger at that time."""

from collections.abc import Iterable
from copy import copy
from typing import Literal

import msgspec

from tokenworks.core import postings
from tokenworks.core.bucket import Bucket
from tokenworks.core.journal import Opening
from tokenworks.core.leasing import SliceGrant
from tokenworks.core.metering import Record
from tokenworks.core.postings import Posting, Transfer, normal_side
from tokenworks.core.standing import SoldBucket

Key = tuple[str, str, str]  # legal entity, code, unit
Name = tuple[str, str, int]  # worker, epoch, sequence
Place = tuple[str, int]  # journal, position


class StoreFault(Exception):
    """The decisions asked for what no ledger may do: an overdrawn account, the same event with another content."""


class SoldRow(msgspec.Struct, frozen=True):
    """A bucket's terms and price."""

    terms: Bucket
    granted: int
    net: int
    tax: int
    currency: str
    payer: str
    on_credit: bool = False


class LeaseRow(msgspec.Struct, frozen=True):
    """A lease as granted; without a digest one that was registered again."""

    lease_id: int
    name: Name
    ordinal: int
    digest: bytes
    grant: SliceGrant
    use_until_ns: int


class EndRow(msgspec.Struct, frozen=True):
    """The end of a lease."""

    how: Literal["closed", "reclaimed"]
    remainder: int
    claimed: int | None


class Cursor(msgspec.Struct, frozen=True):
    """How far a journal is posted."""

    posted_through: int = 0
    shipments: int = 0
    openings: int = 0
    closings: int = 0
    final: bool = False


class EpochRow(msgspec.Struct, frozen=True):
    """A ledger epoch."""

    number: int
    started_at_ns: int
    sites: tuple[str, ...] = ()
    is_settled: bool = False


class State(msgspec.Struct):
    """All rows. `leased` and `fed` are sums over transfers: what is on a bucket's leases, what a lease ever got.

    `not_returned` is what workers said went back of a lease and was not on it.
    """

    accounts: dict[Key, int] = {}
    events: dict[str, Posting] = {}
    buckets: dict[str, SoldRow] = {}
    owned: dict[str, tuple[str, ...]] = {}
    leases: dict[int, LeaseRow] = {}
    granted: dict[Name, tuple[int, ...]] = {}
    open: dict[int, None] = {}
    leased: dict[str, int] = {}
    fed: dict[int, int] = {}
    not_returned: dict[int, int] = {}
    ends: dict[int, EndRow] = {}
    journals: dict[str, Cursor] = {}
    openings: dict[Place, Opening] = {}
    records: dict[Place, Record] = {}
    epochs: dict[int, EpochRow] = {}
    sites: dict[str, None] = {}
    unproven: int = 0
    last_lease_id: int = 0

    def copy(self) -> "State":
        """The ledger as it is now."""
        values = {name: getattr(self, name) for name in self.__struct_fields__}
        return State(**{name: copy(value) for name, value in values.items()})

    @property
    def epoch(self) -> EpochRow | None:
        """The newest epoch."""
        return self.epochs[max(self.epochs)] if self.epochs else None

    def balance(self, entity: str, code: str, unit: str) -> int:
        """An account's balance, on its normal side."""
        return self.accounts.get((entity, code, unit), 0)

    def available(self, bucket_id: str) -> int:
        """What of a bucket can be leased."""
        terms = self.buckets[bucket_id].terms
        return self.balance(terms.legal_entity_id, postings.available(bucket_id), terms.unit)

    def left(self, lease_id: int) -> int:
        """What is on a lease."""
        bucket = self.leases[lease_id].grant.bucket
        return self.balance(bucket.legal_entity_id, postings.lease(lease_id), bucket.unit)

    def sold(self, bucket_id: str) -> SoldBucket:
        """A bucket as metering sees it."""
        row = self.buckets[bucket_id]
        terms = row.terms
        counted = (postings.spent,) if row.on_credit else (postings.spent, postings.expired)
        consumed = sum(self.balance(terms.legal_entity_id, code(bucket_id), terms.unit) for code in counted)
        owner = (terms.legal_entity_id, terms.billing_account_id, terms.unit)
        payer = row.payer if row.on_credit else ""
        return SoldBucket(*owner, row.currency, row.net, row.granted, consumed, row.tax, payer)

    def post(self, posting: Posting) -> bool:
        """Carry out a posting; False if its event was posted before."""
        return self.post_all((posting,)) == 1

    def post_all(self, new: Iterable[Posting]) -> int:
        """Carry out postings with one net change for each account; how many had not been posted before."""
        fresh = [posting for posting in new if self._is_fresh(posting)]
        for posting in fresh:
            self.events[posting.event_id] = posting
            for transfer in posting.transfers:
                self._transfer(posting, transfer)
        for posting in fresh:
            for transfer in posting.transfers:
                for code in (transfer.debit, transfer.credit):
                    if self.balance(posting.legal_entity_id, code, transfer.unit) < 0:
                        raise StoreFault(f"{posting.event_id} overdraws {code}")
        return len(fresh)

    def _is_fresh(self, posting: Posting) -> bool:
        before = self.events.get(posting.event_id)
        if before is not None and before != posting:
            raise StoreFault(f"{posting.event_id} was posted with another content")
        return before is None

    def _transfer(self, posting: Posting, transfer: Transfer) -> None:
        entity, unit, amount = posting.legal_entity_id, transfer.unit, transfer.amount
        if amount <= 0 or transfer.debit == transfer.credit:
            raise StoreFault(f"{posting.event_id}: {transfer} is no transfer")
        self._move(entity, transfer.debit, unit, amount, is_debit=True)
        self._move(entity, transfer.credit, unit, amount, is_debit=False)
        if transfer.credit.startswith("lease/"):
            lease_id = int(transfer.credit[6:])
            self.fed[lease_id] = self.fed.get(lease_id, 0) + amount

    def end(self, lease_id: int, end: EndRow) -> None:
        """A lease is over."""
        del self.open[lease_id]
        self.ends[lease_id] = end

    def _move(self, entity: str, code: str, unit: str, amount: int, *, is_debit: bool) -> None:
        key = (entity, code, unit)
        change = amount if (normal_side(code) == "debit") == is_debit else -amount
        self.accounts[key] = self.accounts.get(key, 0) + change
        if code.startswith("lease/"):
            bucket_id = self.leases[int(code[6:])].grant.bucket.id
            self.leased[bucket_id] = self.leased.get(bucket_id, 0) + change
