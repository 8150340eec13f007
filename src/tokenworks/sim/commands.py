"""What the ledger is told to do, as records: a history of them can be carried out again, in memory or on PostgreSQL."""

from typing import Literal

import msgspec

from tokenworks.core.bucket import Bucket
from tokenworks.core.leasing import LeaseReply, LeaseRequest
from tokenworks.core.tariff import Tariff
from tokenworks.core.wire import ShipReply, ShipRequest


class Sell(msgspec.Struct, frozen=True):
    """A paid package, or a period of credit: then the order is the agreement."""

    at_ns: int
    order_id: str
    bucket: Bucket
    granted: int
    payer: str
    currency: str
    net: int
    tax: int
    on_credit: bool = False


class Grant(msgspec.Struct, frozen=True):
    """Lease requests that are answered in one transaction."""

    at_ns: int
    requests: tuple[LeaseRequest, ...]
    tariffs: dict[str, Tariff]


class Ship(msgspec.Struct, frozen=True):
    """Journal bytes to post."""

    at_ns: int
    request: ShipRequest


class Reclaim(msgspec.Struct, frozen=True):
    """Take back leases of silent workers, but of those whose journals are shipping; of final journals at once."""

    at_ns: int
    silent_since_ns: int
    shipping: tuple[str, ...]
    final: tuple[str, ...]


class Expire(msgspec.Struct, frozen=True):
    """Book what buckets past their validity still have."""

    at_ns: int


class Begin(msgspec.Struct, frozen=True):
    """A ledger epoch begins."""

    at_ns: int
    why: Literal["created", "failover", "restore"]


class SiteShipped(msgspec.Struct, frozen=True):
    """A disk has nothing left that an epoch does not have."""

    at_ns: int
    epoch: int
    site_id: str


class Settle(msgspec.Struct, frozen=True):
    """Settle the epoch if it is time."""

    at_ns: int
    is_late: bool


Command = Sell | Grant | Ship | Reclaim | Expire | Begin | SiteShipped | Settle
Reply = tuple[LeaseReply, ...] | ShipReply | int


class Done(msgspec.Struct, frozen=True):
    """A command and what it answered."""

    command: Command
    reply: Reply
