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
        self._left = {lease_id: lease.left for lease_id, lease in leases.items()}
        self._used: dict[str, tuple[int, int, int]] = {}  # consumed so far, and revenue and tax of it

    def take(self, opening: Opening, charge: Charge) -> SoldBucket | None:
        """Take a charge from its lease, if the ledger can confirm that this account leased it and enough is left."""
        left = self._left.get(charge.lease_id)
        if left is None or left < charge.amount or self.bucket_of[charge.lease_id] != charge.bucket_id:
            return None
        bucket = self.buckets[charge.bucket_id]
        if (
            bucket.billing_account_id != opening.billing_account_id
            or bucket.legal_entity_id != opening.legal_entity_id
            or bucket.unit != charge.unit
        ):
            return None
        self._left[charge.lease_id] = left - charge.amount
        return bucket

    def earn(self, bucket_id: str, amount: int) -> tuple[int, int]:
        """The revenue that this much more of a bucket recognises, and the tax that is owed for it."""
        bucket = self.buckets[bucket_id]
        used = self._used.get(bucket_id)
        if used is None:
            used = (bucket.consumed, *bucket.earned(bucket.consumed))
        consumed = used[0] + amount
        net, tax = bucket.earned(consumed)
        self._used[bucket_id] = (consumed, net, tax)
        return net - used[1], tax - used[2]

    def give(self, lease_id: int, amount: int) -> int | None:
        """Take back a part of a lease, no more than is left; None if the lease has ended."""
        left = self._left.get(lease_id)
        if left is None:
            return None
        given = min(left, amount)
        self._left[lease_id] = left - given
        if (bucket_id := self.bucket_of[lease_id]) in self._available:
            self._available[bucket_id] += given
        return given

    def end(self, lease_id: int) -> int | None:
        """End a lease; gives what was left, or None if it had ended before."""
        left = self._left.pop(lease_id, None)
        if left and (bucket_id := self.bucket_of[lease_id]) in self._available:
            self._available[bucket_id] += left
        return left

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
        self._left[taken.lease_id] = held
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
            self._left[lease_id] += amount
        return lacking

    def _lacking(self, charges: tuple[Charge, ...]) -> dict[int, int]:
        sums: dict[int, int] = {}
        for charge in charges:
            if charge.lease_id in self.drawing and charge.lease_id in self._left:
                sums[charge.lease_id] = sums.get(charge.lease_id, -self._left[charge.lease_id]) + charge.amount
        return sums
