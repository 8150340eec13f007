"""The story of a run, a line for each thing that somebody saw or the ledger did: for a person who looks for a bug."""

from collections.abc import Iterator

from tokenworks.core.leasing import LeaseReply, LeaseRequest
from tokenworks.core.wire import ShipReply, ShipRequest
from tokenworks.sim.commands import Begin, Done, Expire, Grant, Reclaim, Sell, Settle, Ship
from tokenworks.sim.plan import MS_NS, Ask
from tokenworks.sim.witness import Heard, Served

Line = tuple[int, str]
_LONGEST = 120


def tell(
    asks: tuple[Ask, ...],
    heard: list[Heard],
    served: list[Served],
    commands: list[tuple[int, Done]],
    notes: list[Line],
) -> tuple[str, ...]:
    """All lines in the order of their time, at most a named number: the last ones."""
    by_number = {ask.number: ask for ask in asks}
    lines: list[Line] = [*notes]
    for each in heard:
        lines.extend(_customer(each, by_number[each.number]))
    lines.extend((call.began_ns, _supplier(call)) for call in served)
    for at_ns, done in commands:
        text = _command(done)
        if text:
            lines.append((at_ns, text))
    lines.sort(key=lambda line: line[0])
    told = [f"{at_ns // MS_NS:>7}.{at_ns // 1000 % 1000:03} ms  {text}" for at_ns, text in lines]
    left_out = len(told) - _LONGEST
    return tuple(told) if left_out <= 0 else (f"… {left_out} lines before", *told[left_out:])


def _customer(heard: Heard, ask: Ask) -> Iterator[Line]:
    how = "a stream" if ask.stream else "an answer"
    what = f"{how} (request {ask.number}, up to {ask.output_max or 'any'})"
    yield heard.began_ns, f"customer {heard.account} asks {heard.worker} for {what}"
    if heard.left_ns:
        yield heard.ended_ns, f"customer of request {ask.number} goes away with {heard.tokens} tokens"
    elif heard.ended_ns:
        end = "whole" if heard.is_whole else "broken off"
        cost = f", charged {heard.charged}" if heard.charged else ""
        code = f" {heard.code}" if heard.code else ""
        name = f"request {ask.number} ({heard.request_id[-6:]})"
        yield heard.ended_ns, f"{name} ends with {heard.status}{code}: {heard.tokens} tokens, {end}{cost}"


def _supplier(call: Served) -> str:
    usage = f", reports {call.usage}" if call.usage else ""
    return (
        f"{call.endpoint} serves request {call.number} ({call.request_id[-6:]}) of {call.worker}: {call.kind},"
        f" {call.tokens} tokens of {call.limit}{usage}"
    )


def _command(done: Done) -> str:  # noqa: PLR0911 - a table
    command, reply = done.command, done.reply
    match command:
        case Sell():
            return f"ledger: {command.bucket.id} is sold, {command.granted} {command.bucket.unit}"
        case Grant() if isinstance(reply, tuple):
            return "; ".join(_lease(*pair) for pair in zip(command.requests, reply, strict=True))
        case Ship() if isinstance(reply, ShipReply):
            return _shipment(command.request, reply)
        case Begin():
            return f"ledger: epoch {reply} begins"
        case Settle() if reply:
            return "ledger: the epoch is settled" + (", late" if command.is_late else "")
        case Reclaim() | Expire() if reply:
            return f"ledger: {type(command).__name__.lower()} takes {reply}"
        case _:
            return ""


def _shipment(request: ShipRequest, reply: ShipReply) -> str:
    """Questions how far the ledger is are left out."""
    if not (request.frames or request.final or reply.fault):
        return ""
    through = request.from_position + len(request.frames)
    final = ", the last" if request.final else ""
    what = f"{request.journal_id[-6:]} from {request.from_position} to {through}{final}"
    return f"ledger: {what}: posted through {reply.posted_through} {reply.fault}".rstrip()


def _lease(request: LeaseRequest, reply: LeaseReply) -> str:
    name = f"{request.worker} asks for {request.billing_account_id} ({request.sequence})"
    if reply.refusal is not None:
        return f"ledger: {name}: {reply.refusal.code.value}"
    leases = ", ".join(f"{lease.lease_id} of {lease.amount} from {lease.bucket.id}" for lease in reply.leases)
    return f"ledger: {name}: leases {leases}"
