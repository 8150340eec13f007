"""The ledger's decision about a lease: which buckets give how much to a worker that asks for one account.

Pure: the bucket balances go in, slices or a refusal come out; the ledger's store carries it out in one transaction.
Slices follow the worker's recent pace, hold at most a named share of a large balance, and go down to the exact need
of one request when the balance is low, so that the last token can still be spent and little is stranded.
"""

from collections.abc import Mapping

import msgspec

from tokenworks.core.bounds import Need
from tokenworks.core.bucket import Bucket
from tokenworks.core.purse import cover
from tokenworks.core.refusals import Code, Refusal
from tokenworks.core.tariff import Price, Tariff, bound

NO_CAPS: Mapping[str, int] = {}
# No ledger grants more leases than these in a millisecond, on average over an epoch's life.
_LEASE_IDS_PER_MS = 1 << 11

RESERVED = Refusal(
    Code.BALANCE_RESERVED,
    "The balance is reserved by requests that are still running. Retry shortly.",
    retry_after_ms=1_000,
)
_WORKER_AT_CAP = Refusal(
    Code.LEASE_UNAVAILABLE,
    "This gateway worker holds as much unposted balance as it may. Retry shortly.",
    retry_after_ms=1_000,
)


def first_lease_id(epoch: int) -> int:
    """Above every lease id of an earlier epoch, also of one that the ledger has forgotten with what it lost.

    An epoch is named by the millisecond it began in. Ids stay below 2⁵³, which JSON's readers can count to, until 2109.
    """
    return epoch * _LEASE_IDS_PER_MS


class LeaseRequest(msgspec.Struct, frozen=True):
    """A worker's request. (worker, epoch, sequence) names it: asking again gives the same leases.

    `need` is what the waiting requests lack. Of the first of them, `likely` is the part that a likely answer takes and
    `least` the part without which there is no point. `pace` is what the worker reserved for the account and model
    during its last lease life. `free` is what it holds idle, by bucket, and what the stream has
    that wants more: nobody else will give that back.

    `early`: no request waits, and nothing is wanted that a request might need. `extends`: for a stream that runs.
    `wait_ms`: how long the answer may wait for slices to come back.
    """

    worker: str
    epoch: str
    sequence: int
    billing_account_id: str
    model: str
    need: Need
    least: Need
    pace: Need
    likely: Need
    free: tuple[tuple[str, int], ...] = ()
    early: bool = False
    extends: bool = False
    wait_ms: int = 0


class Held(msgspec.Struct, frozen=True):
    """A bucket's terms with its balance: `available` can be leased, `leased` is with workers now."""

    bucket: Bucket
    available: int
    leased: int


class Rooms(msgspec.Struct, frozen=True):
    """What may still be leased before usage has been posted, by unit; a unit that is not named has no cap."""

    account: Mapping[str, int] = NO_CAPS
    worker: Mapping[str, int] = NO_CAPS


class SliceGrant(msgspec.Struct, frozen=True):
    """Move `amount` from the bucket's available balance to a new lease. `linger`: may be kept while idle."""

    bucket: Bucket
    amount: int
    linger: bool


class Lease(msgspec.Struct, frozen=True, array_like=True):
    """A granted lease as the worker gets it. `use_for_ns` counts from the moment the worker sent its request."""

    lease_id: int
    bucket: Bucket
    amount: int
    use_for_ns: int
    linger: bool


class LeaseReply(msgspec.Struct, frozen=True):
    """The answer to a lease request: leases (perhaps covering less than the need), or the reason for none.

    `elsewhere`: slices of matching buckets are out that may come back. `is_low`: others wait for this account's
    balance, so what is not needed at once is to go back.
    """

    leases: tuple[Lease, ...] = ()
    refusal: Refusal | None = None
    elsewhere: bool = False
    is_low: bool = False


class Decision(msgspec.Struct, frozen=True):
    """Slices to grant, or a refusal and no slices."""

    grants: tuple[SliceGrant, ...] = ()
    refusal: Refusal | None = None
    elsewhere: bool = False


UNCAPPED = Rooms()


class _Source(msgspec.Struct, frozen=True):
    """A matching bucket and its price; `reach` is what may be let out of it, less than is available where caps bind."""

    held: Held
    price: Price
    reach: int


_Sources = tuple[_Source, ...]


def decide(
    request: LeaseRequest,
    held: list[Held],
    tariffs: dict[str, Tariff],
    share_percent: int,
    now_ns: int,
    rooms: Rooms = UNCAPPED,
) -> Decision:
    """Who gets what, in this order: the whole need; what there is, if a likely answer can be had from it; the advice
    to wait, where slices may come back; what there is, if it is better than nothing; a no.
    """
    matching = _matching(request.model, held, tariffs, now_ns)
    sources = _within(matching, rooms)
    if request.early:
        return _early(request, sources, share_percent)
    if not sources:
        return Decision(refusal=_no_bucket(request.model))
    idle = dict(request.free)
    elsewhere = any(source.held.leased > idle.get(source.held.bucket.id, 0) for source in sources)
    grants, short = _grants(request, sources, share_percent)
    if short == Need(0, 0) or _reaches(request.likely, sources):
        return Decision(grants, elsewhere=elsewhere)
    if not elsewhere and _reaches(request.least, sources):
        return Decision(grants)
    wanted = request.likely if elsewhere else request.least
    if _reaches(wanted, _within(matching, Rooms(account=rooms.account))):
        refusal = _WORKER_AT_CAP
    elif elsewhere or _reaches(wanted, matching):
        refusal = RESERVED
    else:
        refusal = _used_up(matching)
    return Decision(refusal=refusal, elsewhere=elsewhere)


def _matching(model: str, held: list[Held], tariffs: dict[str, Tariff], now_ns: int) -> _Sources:
    """The buckets that may pay for the model, first drawn first."""
    sources: list[_Source] = []
    for state in sorted(held, key=lambda state: state.bucket.draw_key()):
        bucket = state.bucket
        tariff = tariffs.get(bucket.tariff_id)
        price = tariff.price(model, bucket.tier) if tariff and bucket.matches(model, now_ns) else None
        if price is not None:
            sources.append(_Source(state, price, state.available))
    return tuple(sources)


def _within(sources: _Sources, rooms: Rooms) -> _Sources:
    """The same buckets with no more within reach than both caps leave in their units."""
    left = {
        unit: max(0, min(room[unit] for room in (rooms.account, rooms.worker) if unit in room))
        for unit in (*rooms.account, *rooms.worker)
    }
    if not left:
        return sources
    capped: list[_Source] = []
    for source in sources:
        unit = source.held.bucket.unit
        reach = min(source.reach, left.get(unit, source.reach))
        if unit in left:
            left[unit] -= reach
        capped.append(_Source(source.held, source.price, reach))
    return tuple(capped)


def _grants(request: LeaseRequest, sources: _Sources, share_percent: int) -> tuple[tuple[SliceGrant, ...], Need]:
    """Slices in draw order until the need is covered, and what of it is not."""
    grants: list[SliceGrant] = []
    short = request.need
    for source in sources:
        if short == Need(0, 0):
            break
        if source.reach == 0:
            continue
        _, rest = cover(short, source.reach, source.price)
        grants.append(_slice(source, short, request.pace, share_percent))
        short = rest
    return tuple(grants), short


def _slice(source: _Source, need: Need, pace: Need, share_percent: int) -> SliceGrant:
    exact = bound(need.input_max, need.output_max, source.price)
    wanted = exact + bound(pace.input_max, pace.output_max, source.price)
    share = source.held.available * share_percent // 100
    # At least one unit: a model whose price is zero is still drawn from a bucket that the worker must hold.
    amount = min(source.reach, max(exact, min(wanted, share), 1))
    return SliceGrant(source.held.bucket, amount, linger=exact <= share)


def _early(request: LeaseRequest, sources: _Sources, share_percent: int) -> Decision:
    """The next slice of the first bucket that has any, while that is large; the last of it is for those who wait."""
    for source in sources:
        if source.reach > 0:
            grant = _slice(source, request.need, request.pace, share_percent)
            return Decision((grant,)) if grant.linger else Decision()
    return Decision()


def _reaches(need: Need, sources: _Sources) -> bool:
    """Whether what can be let out covers this need. Asked for each by itself: input is covered before output."""
    short = need
    for source in sources:
        if short == Need(0, 0):
            break
        if source.reach:
            _, short = cover(short, source.reach, source.price)
    return short == Need(0, 0)


def _used_up(sources: _Sources) -> Refusal:
    left = ", ".join(f"{source.held.available:,} {source.held.bucket.unit}" for source in sources)
    return Refusal(
        Code.BALANCE_USED_UP,
        f"The balance does not cover this request (left: {left}). Top up, or ask for less with max_tokens.",
    )


def _no_bucket(model: str) -> Refusal:
    return Refusal(
        Code.NO_MATCHING_BUCKET,
        f"No valid package of this account covers the model {model!r}. Buy a package that does.",
    )
