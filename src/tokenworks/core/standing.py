"""What leases and buckets stand at while batches of usage are decided: charges, ends, and leases that were lost.

Pure; `core.metering` goes through the entries and asks here, `meter` reads what the ledger has.
"""

from collections import Counter
from collections.abc import Mapping

import msgspec

from tokenworks.core.journal import LeaseTaken, Opening
from tokenworks.core.purse import Charge
from tokenworks.core.sales import owed, recognised


class OpenLease(msgspec.Struct, frozen=True, gc=False):
    """A lease that has not ended; `left` is what the ledger has on it.

    One that `draws` was registered again after its grant was lost: it takes from its bucket what it lacks.
    """

    bucket_id: str
    left: int
    draws: bool = False


class SoldBucket(msgspec.Struct, frozen=True, gc=False):
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

    def earned(self, consumed: int) -> tuple[int, int]:
        """The revenue of so much use, and the tax owed on it: none where it was paid before."""
        if self.payer:
            return owed(self.net, self.tax, consumed, self.granted)
        return recognised(self.net, consumed, self.granted), 0


class Registered(msgspec.Struct, frozen=True):
    """A lost lease, as its worker took it, with what is taken out of its bucket for it at once."""

    taken: LeaseTaken
    legal_entity_id: str
    unit: str
    held: int


class Use:
    """What was used of a bucket so far, what it earned, and the tax of it, in the midst of a batch."""

    __slots__ = ("bucket", "consumed", "net", "tax")

    def __init__(self, bucket: SoldBucket) -> None:
        self.bucket = bucket
        self.consumed = bucket.consumed
        self.net, self.tax = bucket.earned(bucket.consumed)

    def earn(self, amount: int) -> tuple[int, int]:
        """The revenue that this much more of the bucket recognises, and the tax that is owed for it."""
        net, tax = self.net, self.tax
        self.consumed += amount
        self.net, self.tax = self.bucket.earned(self.consumed)
        return self.net - net, self.tax - tax


class Holding:
    """A lease in the midst of a batch: what is left on it, and the use of its bucket."""

    __slots__ = ("bucket_id", "left", "use")

    def __init__(self, bucket_id: str, left: int, use: Use) -> None:
        self.bucket_id = bucket_id
        self.left = left
        self.use = use

    def confirms(self, opening: Opening, charge: Charge) -> bool:
        """Whether this account leased it from this bucket, and enough is left for the charge."""
        bucket = self.use.bucket
        return (
            self.left >= charge.amount
            and self.bucket_id == charge.bucket_id
            and bucket.billing_account_id == opening.billing_account_id
            and bucket.legal_entity_id == opening.legal_entity_id
            and bucket.unit == charge.unit
        )


class Standing:
    """What leases and buckets have left while batches are decided, one after another, within one transaction.

    `lost` are leases of `LeaseTaken`s whose grants were lost in a failover or a restore. `available` is what the
    buckets of leases that draw have; while the ledger `is_settling`, more may come back to them from other journals.
    """

    def __init__(
        self,
        leases: Mapping[int, OpenLease],
        buckets: Mapping[str, SoldBucket],
        lost: frozenset[int] = frozenset(),
        available: Mapping[str, int] = {},
        is_settling: bool = False,
    ) -> None:
        self.buckets = buckets
        self.drawing = {lease_id for lease_id, lease in leases.items() if lease.draws}
        self._lost = lost
        self._available = dict(available)
        self._is_settling = is_settling
        self.bucket_of = {lease_id: lease.bucket_id for lease_id, lease in leases.items()}
        self._uses = {bucket_id: Use(bucket) for bucket_id, bucket in buckets.items()}
        self.holdings = {
            lease_id: Holding(lease.bucket_id, lease.left, self._uses[lease.bucket_id])
            for lease_id, lease in leases.items()
        }
        """Those that have not ended."""

    def give(self, lease_id: int, amount: int) -> int | None:
        """Take back a part of a lease, no more than is left; None if the lease has ended."""
        held = self.holdings.get(lease_id)
        if held is None:
            return None
        given = min(held.left, amount)
        held.left -= given
        if held.bucket_id in self._available:
            self._available[held.bucket_id] += given
        return given

    def end(self, lease_id: int) -> int | None:
        """End a lease; gives what was left, or None if it had ended before."""
        held = self.holdings.pop(lease_id, None)
        if held is None:
            return None
        if held.bucket_id in self._available:
            self._available[held.bucket_id] += held.left
        return held.left

    def register(self, taken: LeaseTaken) -> Registered | None:
        """Register a lease again whose grant was lost, if its bucket is there.

        While the ledger settles, nothing is held for it: journals come in any order, and a lease that gave back most of
        what it had would keep others, perhaps granted from just that, from what they have charged. Each draws what it
        charged, which in sum was there; what is open in the end is held when the ledger is settled.
        """
        bucket_id = taken.bucket_id
        bucket = self.buckets.get(bucket_id)
        if taken.lease_id not in self._lost or taken.lease_id in self.bucket_of or bucket is None:
            return None
        held = 0 if self._is_settling else min(self._available.get(bucket_id, 0), taken.amount)
        self._available[bucket_id] = self._available.get(bucket_id, 0) - held
        self.holdings[taken.lease_id] = Holding(bucket_id, held, self._uses[bucket_id])
        self.bucket_of[taken.lease_id] = bucket_id
        self.drawing.add(taken.lease_id)
        return Registered(taken, bucket.legal_entity_id, bucket.unit, held)

    def draw(self, charges: tuple[Charge, ...]) -> dict[int, int] | None:
        """Let leases that draw take what they lack for these charges, by lease; None where that must be waited for.

        Where the ledger is settled, nothing comes any more: what is not there is not drawn, and the charge is our loss.
        """
        lacking = {lease_id: amount for lease_id, amount in self._lacking(charges).items() if amount > 0}
        wanted: Counter[str] = Counter()
        for lease_id, amount in lacking.items():
            wanted[self.bucket_of[lease_id]] += amount
        if any(self._available.get(bucket_id, 0) < amount for bucket_id, amount in wanted.items()):
            return None if self._is_settling else {}
        self._available.update({bucket_id: self._available[bucket_id] - wanted[bucket_id] for bucket_id in wanted})
        for lease_id, amount in lacking.items():
            self.holdings[lease_id].left += amount
        return lacking

    def _lacking(self, charges: tuple[Charge, ...]) -> dict[int, int]:
        sums: dict[int, int] = {}
        for charge in charges:
            if charge.lease_id in self.drawing and (held := self.holdings.get(charge.lease_id)):
                sums[charge.lease_id] = sums.get(charge.lease_id, -held.left) + charge.amount
        return sums
