"""The auditor's reading of one usage record, against what its supplier and its customer saw."""

from collections import Counter
from collections.abc import Iterator, Mapping

from tokenworks.core.journal import Closing
from tokenworks.core.metering import Record
from tokenworks.sim import rating
from tokenworks.sim.extensions import Bound
from tokenworks.sim.rating import Counts
from tokenworks.sim.witness import Heard, Served

Finding = tuple[str, str]
_LIES = frozenset({"above reservation", "nothing", "malformed", "unsaid"})
_FRAME_BYTES = 60  # what the JSON around a prompt has


def check_record(record: Record, bound: Bound, calls: list[Served], rounds_up: Mapping[str, bool]) -> Iterator[Finding]:
    """Everything that is wrong with it."""
    yield from _within_reservation(record, bound)
    yield from _rated(record, bound)
    yield from _costs(record, rounds_up)
    yield from _basis(record, bound, calls)


def _within_reservation(record: Record, bound: Bound) -> Iterator[Finding]:
    tokens = record.closing.tokens
    read, written = tokens.input + tokens.cached_input + tokens.cache_write, tokens.output + tokens.reasoning
    if read > bound.input_max or written > bound.output_max:
        yield "more than reserved", f"{read} read and {written} written of {bound.input_max} and {bound.output_max}"
    taken: Counter[int] = Counter()
    for line in record.lines:
        taken[line.charge.lease_id] += line.charge.amount
    for lease_id, amount in taken.items():
        if amount > bound.reserved.get(lease_id, 0):
            yield "more than reserved", f"{amount} of {bound.reserved.get(lease_id)} from {lease_id}"


def _rated(record: Record, bound: Bound) -> Iterator[Finding]:
    """One rounding for each bucket; one of which all was taken that was reserved may be cheaper than its tokens."""
    sums = [0, 0, 0, 0, 0]
    used: dict[tuple[str, str], list[int]] = {}
    amounts: Counter[tuple[str, str]] = Counter()
    reserved: Counter[tuple[str, str]] = Counter()
    for line in record.lines:
        charge = line.charge
        counts = _counts(charge.tokens)
        sums = [have + more for have, more in zip(sums, counts, strict=True)]
        key = (charge.bucket_id, charge.tariff)
        used[key] = [have + more for have, more in zip(used.get(key, [0] * 5), counts, strict=True)]
        amounts[key] += charge.amount
        reserved[key] += bound.reserved.get(charge.lease_id, 0)
    for key, counts in used.items():
        price = rating.selling_price(key[1], record.opening.model, _five(counts))
        if amounts[key] != price and not amounts[key] == reserved[key] <= price:
            yield "rated wrongly", f"{counts} at {key[1]} cost {price}, charged {amounts[key]}"
    basis = _counts(record.closing.tokens)
    if tuple(sums) != basis:
        yield "charged other tokens", f"{basis} were used, {tuple(sums)} charged"
    if record.closing.basis == "none" and record.lines:
        yield "charged for nothing", f"{len(record.lines)} charges"


def _costs(record: Record, rounds_up: Mapping[str, bool]) -> Iterator[Finding]:
    for attempt in record.closing.attempts:
        # What an endpoint wrote beyond what was passed on is paid to it, and not charged to anybody.
        price = rating.purchase_price(attempt.tariff, _counts(attempt.tokens), up=rounds_up[attempt.endpoint_id])
        if attempt.cost != price:
            yield "cost wrongly", f"{attempt.endpoint_id}: {attempt.cost}, not {price}"


def _basis(record: Record, bound: Bound, calls: list[Served]) -> Iterator[Finding]:
    """What is charged was reported by the supplier that served it, or was seen to pass."""
    closing = record.closing
    if not calls:
        if record.lines:
            yield "charged before dispatch", closing.ending
        return
    for call in calls:
        if not call.stream and call.limit * call.choices > bound.output_max:
            yield "allowed more than reserved", f"{call.choices} of {call.limit}, reserved are {bound.output_max}"
    last = calls[-1]
    if closing.basis == "reported":
        if last.kind in _LIES:
            yield "believed a lie", last.kind
        elif not isinstance(last.usage, tuple) or _counts(closing.tokens) != _disjoint(last.usage):
            yield "not what was reported", f"{last.usage} reported, {_counts(closing.tokens)} charged"
    elif closing.basis == "counted":
        yield from _counted(record, last)
    if closing.ending == "finished" and _is_believable(last, bound, closing) and closing.basis != "reported":
        yield "report not taken", f"{last.usage} was reported, the basis is {closing.basis}"
    if closing.ending in {"client_gone", "finished"} and closing.basis == "none" and last.tokens:
        yield "delivered for nothing", f"{last.tokens} tokens were sent"


def _is_believable(call: Served, bound: Bound, closing: Closing) -> bool:
    """Whether the supplier said a plausible use of all that was passed on."""
    if call.kind not in {"good", "too little", "too much"} or not call.is_whole or not isinstance(call.usage, tuple):
        return False
    is_cut = call.stream and closing.counted.output < call.tokens
    return not is_cut and call.usage[0] <= bound.input_max and call.usage[1] <= bound.output_max


def _counted(record: Record, call: Served) -> Iterator[Finding]:
    bytes_per_token = rating.BYTES_PER_TOKEN[record.opening.model]
    seen = call.tokens if call.stream else sum(-(-size // bytes_per_token) for size in call.text_bytes)
    tokens = record.closing.tokens
    if tokens.output > seen:
        yield "counted too much", f"{tokens.output} of {seen} that were sent"
    most = -(-(call.prompt_bytes + _FRAME_BYTES) // bytes_per_token)
    if tokens.input > most or tokens.cached_input or tokens.cache_write or tokens.reasoning:
        yield "counted too much", f"{_counts(tokens)} of a prompt of {call.prompt_bytes} bytes"


def check_told(record: Record, heard: Heard) -> Iterator[Finding]:
    """The header of a whole answer names what was charged."""
    if not heard.is_whole or record.opening.stream or heard.status != 200:
        return
    units: dict[str, int] = {}
    for line in record.lines:
        units[line.charge.unit] = units.get(line.charge.unit, 0) + line.charge.amount
    if heard.charged != _shown(units):
        yield "told another charge", f"the customer was told {heard.charged!r}, the record has {_shown(units)!r}"


def _shown(units: dict[str, int]) -> str:
    return ", ".join(f"{_decimal(amount, unit)} {unit}" for unit, amount in units.items()) or "0"


def _decimal(amount: int, unit: str) -> str:
    if unit == "token":
        return str(amount)
    whole, rest = divmod(amount, 10**9)
    return f"{whole}.{rest:09d}".rstrip("0").rstrip(".")


def _disjoint(usage: tuple[int, int, int]) -> Counts:
    prompt, completion, cached = usage
    return (prompt - cached, cached, 0, completion, 0)


def _counts(tokens: object) -> Counts:
    """The five counts, field by field."""
    names = ("input", "cached_input", "cache_write", "output", "reasoning")
    read = [int(getattr(tokens, name)) for name in names]
    return _five(read)


def _five(counts: list[int]) -> Counts:
    return (counts[0], counts[1], counts[2], counts[3], counts[4])
