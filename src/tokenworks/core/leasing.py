"""The ledger's decision about a lease: which buckets give how much to a worker that asks for one account.

Pure: the bucket balances go in, slices or a refusal come out; the ledger's store carries it out in one transaction.
Slices follow the worker's recent pace, hold at most a named share of a large balance, and go down to the exact need
of one request when the balance is low, so that the last token can still be spent and little is stranded.
"""

import msgspec

from tokenworks.core.bounds import Need
from tokenworks.core.bucket import Bucket
from tokenworks.core.purse import cover
from tokenworks.core.refusals import Code, Refusal
from tokenworks.core.tariff import Rate, Tariff, bound


class LeaseRequest(msgspec.Struct, frozen=True):
    """A worker's request. (worker, epoch, sequence) names it: asking again gives the same leases.

    `need` is what the waiting requests lack, `least` the part of it without which there is no point, `pace` what the
    worker reserved for the account and model during its last lease life.
    """

    worker: str
    epoch: str
    sequence: int
    billing_account_id: str
    model: str
    need: Need
    least: Need
    pace: Need


class Held(msgspec.Struct, frozen=True):
    """A bucket's terms with its balance: `available` can be leased, `leased` is with workers now."""

    bucket: Bucket
    available: int
    leased: int


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

    `elsewhere`: other workers hold slices of matching buckets that may come back.
    """

    leases: tuple[Lease, ...] = ()
    refusal: Refusal | None = None
    elsewhere: bool = False


class Decision(msgspec.Struct, frozen=True):
    """Slices to grant, or a refusal and no slices."""

    grants: tuple[SliceGrant, ...] = ()
    refusal: Refusal | None = None
    elsewhere: bool = False


def decide(
    request: LeaseRequest, held: list[Held], tariffs: dict[str, Tariff], share_percent: int, now_ns: int
) -> Decision:
    """Grant slices in draw order until the need is covered; refuse when not even the least of it can be."""
    matching = [
        (state, rate)
        for state in sorted(held, key=lambda state: state.bucket.draw_key())
        if state.bucket.matches(request.model, now_ns)
        and (rate := _rate(state.bucket, tariffs, request.model)) is not None
    ]
    if not matching:
        return Decision(refusal=_no_bucket(request.model))
    elsewhere = any(state.leased > 0 for state, _ in matching)
    grants: list[SliceGrant] = []
    short = request.need
    for state, rate in matching:
        if short == Need(0, 0):
            break
        if state.available == 0:
            continue
        _, rest = cover(short, state.available, rate)
        grants.append(_slice(state, rate, short, request.pace, share_percent))
        short = rest
    uncovered = Need(
        request.need.input_max - request.least.input_max, request.need.output_max - request.least.output_max
    )
    if short.input_max > uncovered.input_max or short.output_max > uncovered.output_max:
        return Decision(refusal=_too_little(matching, elsewhere), elsewhere=elsewhere)
    return Decision(tuple(grants), elsewhere=elsewhere)


def _rate(bucket: Bucket, tariffs: dict[str, Tariff], model: str) -> Rate | None:
    tariff = tariffs.get(bucket.tariff_id)
    return tariff.rate(model, bucket.tier) if tariff else None


def _slice(state: Held, rate: Rate, need: Need, pace: Need, share_percent: int) -> SliceGrant:
    exact = bound(need.input_max, need.output_max, rate)
    wanted = exact + bound(pace.input_max, pace.output_max, rate)
    share = state.available * share_percent // 100
    # At least one unit: a model whose price is zero is still drawn from a bucket that the worker must hold.
    amount = min(state.available, max(exact, min(wanted, share), 1))
    return SliceGrant(state.bucket, amount, linger=exact <= share)


def _no_bucket(model: str) -> Refusal:
    return Refusal(
        Code.NO_MATCHING_BUCKET,
        f"No valid package of this account covers the model {model!r}. Buy a package that does.",
    )


def _too_little(matching: list[tuple[Held, Rate]], elsewhere: bool) -> Refusal:
    if elsewhere:
        return Refusal(
            Code.BALANCE_RESERVED,
            "The balance is reserved by requests that are still running. Retry shortly.",
            retry_after_ms=1_000,
        )
    left = ", ".join(f"{state.available:,} {state.bucket.unit}" for state, _ in matching)
    return Refusal(
        Code.BALANCE_USED_UP,
        f"The balance does not cover this request (left: {left}). Top up, or ask for less with max_tokens.",
    )
