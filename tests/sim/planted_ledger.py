"""Planted bugs of metering, of the ledger's store and of its epochs; see `planted`."""
# ruff: noqa: ARG005 - a wrong variant need not look at what the right one looks at

from typing import Any

import msgspec

from sim.planted import bug
from tokenworks.core import journal
from tokenworks.core.amounts import divide
from tokenworks.core.leasing import LeaseReply
from tokenworks.core.metering import Known
from tokenworks.core.standing import OpenLease, Standing, Use
from tokenworks.core.wire import ShipReply, ShipRequest
from tokenworks.gateway.records import Records
from tokenworks.shipping.shipper import Shipper
from tokenworks.sim import posting
from tokenworks.sim.store import Store

# --- metering and the ledger


@bug("revenue is rounded for each charge", Use, "earn")
def _(_right: Any) -> Any:
    def earn(self: Use, amount: int) -> tuple[int, int]:
        return divide(self.bucket.net * amount, self.bucket.granted, "half_up"), 0

    return earn


@bug("a late record is charged all the same", posting, "known_of")
def _(right: Any) -> Any:
    def known(state: Any, journal_id: str, names: Any) -> Known:
        found = right(state, journal_id, names)
        more = {
            lease_id: OpenLease(state.leases[lease_id].grant.bucket.id, 1 << 60)
            for lease_id in names.leases
            if lease_id in state.ends
        }
        return msgspec.structs.replace(found, leases={**more, **found.leases})

    return known


@bug("a repeated lease request is granted again", Store, "_answer")
def _(right: Any) -> Any:
    def answer(self: Any, request: Any, *args: Any) -> LeaseReply:
        self.state.granted.pop((request.worker, request.epoch, request.sequence), None)
        return right(self, request, *args)

    return answer


@bug("leases are reclaimed without grace", Store, "_reclaim")
def _(right: Any) -> Any:
    def reclaim(self: Any, command: Any) -> int:
        return right(self, msgspec.structs.replace(command, silent_since_ns=command.at_ns, shipping=()))

    return reclaim


@bug("a bucket expires while it is leased", Store, "_unused")
def _(right: Any) -> Any:
    return lambda self, bucket_id: right(self, bucket_id) + self.state.leased.get(bucket_id, 0)


@bug("bytes that come again are posted again", posting, "_post")
def _(right: Any) -> Any:
    def post(state: Any, ship: ShipRequest, entries: Any, cursor: Any, now_ns: int) -> ShipReply:
        if ship.from_position < cursor.posted_through:
            cursor = msgspec.structs.replace(cursor, posted_through=ship.from_position)
        return right(state, ship, entries, cursor, now_ns)

    return post


@bug("a lost lease is not registered again", posting, "lost_of")
def _(_right: Any) -> Any:
    return lambda state, names: frozenset()


@bug("a registered lease takes all at once", Standing, "__init__")
def _(right: Any) -> Any:
    def init(self: Standing, leases: Any, buckets: Any, lost: Any = frozenset(), *more: Any) -> None:
        right(self, leases, buckets, lost, *more[:1])

    return init


@bug("an epoch is not waited for", Store, "_begin")
def _(right: Any) -> Any:
    def begin(self: Any, command: Any) -> int:
        number = right(self, command)
        self.state.epochs[number] = msgspec.structs.replace(self.state.epochs[number], is_settled=True)
        return number

    return begin


@bug("ids of lost leases are given again", Store, "_begin")
def _(right: Any) -> Any:
    def begin(self: Any, command: Any) -> int:
        before = self.state.last_lease_id
        number = right(self, command)
        self.state.last_lease_id = before
        return number

    return begin


@bug("a ledger that went back is not shipped to again", Shipper, "_accept")
def _(right: Any) -> Any:
    def accept(self: Any, reply: ShipReply) -> bool:
        return right(self, msgspec.structs.replace(reply, posted_through=max(reply.posted_through, self._position)))

    return accept


@bug("a part that goes back is not written down", Records, "append")
def _(right: Any) -> Any:
    return lambda self, entry: True if isinstance(entry, journal.LeaseReturn) else right(self, entry)


@bug("an account's cap is not looked at", Store, "_account_room")
def _(_right: Any) -> Any:
    return lambda self, held: {}


@bug("a lease is granted from what others hold", Store, "_held")
def _(right: Any) -> Any:
    def held(self: Any, request: Any, now_ns: int) -> Any:
        return [
            msgspec.structs.replace(each, available=each.available + each.leased // 2)
            for each in right(self, request, now_ns)
        ]

    return held
